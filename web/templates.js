// What our templates say, in the page's language: their notes, and the titles of the nodes beside them.

const NOTE = 'MarkdownNote'

/** Whether a graph, as workflows save it, has a note, which may be ours. */
export function hasNote(graph) {
  return notesOf(graph).length > 0
}

/**
 * Say one of our templates in a language, by its texts {titles, notes} of locales/<language>/main.json. Only a note that is
 * as we wrote it is changed, and titles only beside such a note.
 */
export function translate(graph, texts) {
  if (!texts) return
  const known = new Map(Object.values(texts.notes).map(({ english, text }) => [english, text]))
  const ours = notesOf(graph).filter((note) => known.has(checksum(note.widgets_values[0])))
  for (const note of ours) note.widgets_values[0] = known.get(checksum(note.widgets_values[0]))
  if (!ours.length) return
  for (const node of graph.nodes) {
    if (Object.hasOwn(texts.titles, node.title ?? '')) node.title = texts.titles[node.title]
  }
}

/** CRC-32 of a text in UTF-8, as 8 hexadecimal digits. */
export function checksum(text) {
  let rest = -1
  for (const byte of new TextEncoder().encode(text)) {
    rest ^= byte
    for (let bit = 0; bit < 8; bit++) rest = (rest >>> 1) ^ (rest & 1 ? 0xedb88320 : 0)
  }
  return (~rest >>> 0).toString(16).padStart(8, '0')
}

function notesOf(graph) {
  const nodes = Array.isArray(graph?.nodes) ? graph.nodes : []
  return nodes.filter((node) => node?.type === NOTE && typeof node.widgets_values?.[0] === 'string')
}
