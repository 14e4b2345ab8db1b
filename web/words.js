// What the page says on the nodes, in its language: the texts of locales/<language>/main.json, which the host serves.

const DEFAULT = 'en'

/** The texts of a language in what the host serves of all: its own, those of its first part ("zh" of "zh-TW"), English. */
export function wordsIn(served, language) {
  const texts = (name) => served?.[name]?.fmboost
  const english = texts(DEFAULT)
  if (!english) return null
  const found = [language, language.split('-')[0]].find(texts) ?? DEFAULT
  return new Words(texts(found), english, found)
}

/** The texts {line, warnings} of a language, and the English ones, by which the host's warnings are known. */
export class Words {
  constructor(texts, english = texts, language = DEFAULT) {
    Object.assign(this, { texts, english, plural: new Intl.PluralRules(language) })
  }

  /** The text of a key with its values filled in. */
  say(key, values = {}) {
    return filled(this.texts.line[key], values)
  }

  /** The text of a key that has a form for each kind of number: "1 stage", "2 stages". */
  count(key, count) {
    const forms = this.texts.line[key]
    return filled(forms[this.plural.select(count)] ?? forms.other, { count })
  }

  /** One of the host's English warnings in this language; as it is where its text is not known. */
  warning(sentence) {
    if (this.texts === this.english) return sentence
    for (const [key, text] of Object.entries(this.english.warnings)) {
      const values = matched(text, sentence)
      if (values) return filled(this.texts.warnings[key], values)
    }
    return sentence
  }
}

function filled(text, values) {
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name])
}

/** The values of a text's names in a sentence; null where it is another one. */
function matched(text, sentence) {
  const literal = (part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
  const pattern = text.split(/(\{\w+\})/).map((part) => (/^\{/.test(part) ? `(?<${part.slice(1, -1)}>.*)` : literal(part)))
  const found = new RegExp(`^${pattern.join('')}$`, 's').exec(sentence)
  return found && { ...found.groups }
}
