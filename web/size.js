// Target sizes, stages and the line on a node, as pure functions. A size is {width, height} in pixels.
// The arithmetic is that of fmboost_core/sampling/target.py (`Target.pixels`, `stage_sizes`).
// tests/test_web.py compares the two.

export const UNIT = 8 // pixels per latent along each side, in every family
export const MODEL_SCALE = 2 // upscale factor of a stage where the model is not known
export const OWN_NFE = 0 // the widget's value for the model's own number of function evaluations
export const OWN_NOISE_STEP = -1 // the widget's value for the model's own noise step
export const OWN_STRENGTH = 0 // the widget's value for the model's own strength
export const ENLARGED_STRENGTH = 0.3 // what stands for it behind an upscale model
export const BUNDLED_STRENGTH = 0.05 // and behind the bundled one
export const AUTO_METHOD = 'auto' // the guide method that takes a bundled upscale model, or the model's guide network

const MAX_SIDE = 65536
const MAX_PIXELS = 2 ** 28

/** Round as Python does: halves go to the even neighbour. */
export function round(x) {
  const below = Math.floor(x)
  if (x - below !== 0.5) return Math.round(x)
  return below % 2 === 0 ? below : below + 1
}

/** Both sides as the nearest multiples of unit, at least one unit. */
export function toUnit(size, unit) {
  const side = (x) => Math.max(unit, round(x / unit) * unit)
  return { width: side(size.width), height: side(size.height) }
}

/**
 * The target size for an image of size `start`, or {problem} with the key of a sentence and its values.
 * wish: the node's size widgets.
 */
export function targetSize(start, wish, unit = 1) {
  let wanted = { width: wish.width, height: wish.height }
  if (wish.size_by !== 'width x height') {
    const area = start.width * start.height
    const ratio = wish.size_by === 'megapixels' ? Math.sqrt((wish.megapixels * 1e6) / area) : wish.scale
    wanted = { width: start.width * ratio, height: start.height * ratio }
  }
  const end = toUnit(wanted, unit)
  if (Math.max(end.width, end.height) > MAX_SIDE || end.width * end.height > MAX_PIXELS) {
    return { problem: ['tooMany', { size: shown(end) }] }
  }
  if (end.width < start.width || end.height < start.height) {
    return { problem: ['smaller', { size: shown(end), start: shown(start) }] }
  }
  return end
}

/** The number of stages that a ratio takes. */
export function stageCount(ratio, modelScale = MODEL_SCALE) {
  return ratio <= 1 ? 1 : Math.max(1, Math.ceil(Math.log(ratio) / Math.log(modelScale) - 1e-6))
}

/** The size after each stage, with equal ratios. The sizes before the last are rounded to `unit`, as the core does. */
export function stageSizes(start, end, unit = 1, modelScale = MODEL_SCALE) {
  const ratio = Math.max(end.height / start.height, end.width / start.width)
  const count = stageCount(ratio, modelScale)
  const sizes = []
  for (let i = 0; i < count - 1; i++) {
    const part = ratio ** ((i + 1) / count - 1)
    const exact = { width: round(end.width * part), height: round(end.height * part) }
    sizes.push(toUnit({ width: Math.max(1, exact.width), height: Math.max(1, exact.height) }, unit))
  }
  return [...sizes, end]
}

export function shown(size) {
  return `${size.width}x${size.height}`
}

/**
 * The line on a node, which says what the node will make.
 * start: the input's size, null where it is not known.
 * widgets: the node's values by name, null where a link decides them; modelScale and modelNfe are the model's own
 * upscale factor and number of function evaluations, perStep the solver's evaluations per step (0: it is adaptive); each
 * is undefined where it is not known. oneStage: true behind an upscale model, which comes to any size in one stage.
 * alone: true where the upscale model makes the picture without the flow.
 * words: the page's `Words`.
 * unit: 8 for latents, 1 for images.
 * flows: false for a node that only makes the guide.
 */
export function summary(start, widgets, words, unit, flows = true) {
  const used = { scale: ['scale'], 'width x height': ['width', 'height'], megapixels: ['megapixels'] }[widgets.size_by]
  if (!used || used.some((name) => widgets[name] == null)) return words.say('sizeLater')
  if (flows && widgets.modelScale <= 1) return words.say('noEnlarging')
  if (!start) return unknownStart(widgets, words, unit, flows)
  const end = targetSize(start, widgets, unit)
  if (end.problem) return words.say(...end.problem)
  if (!flows) return `${shown(start)} → ${shown(end)}`
  const sizes = widgets.oneStage ? [end] : stageSizes(start, end, unit, widgets.modelScale)
  return `${[start, ...sizes].map(shown).join(' → ')}, ${work(sizes.length, widgets, words)}`
}

function unknownStart(widgets, words, unit, flows) {
  if (widgets.size_by === 'scale') {
    const stages = widgets.oneStage ? 1 : stageCount(widgets.scale, widgets.modelScale)
    return `${widgets.scale}x` + (flows ? `, ${work(stages, widgets, words)}` : '')
  }
  const area = words.count('megapixels', widgets.megapixels)
  const end = widgets.size_by === 'megapixels' ? area : shown(toUnit(widgets, unit))
  if (flows && widgets.oneStage) return `${words.say('to', { size: end })}, ${work(1, widgets, words)}`
  const nfe = widgets.perStep && evaluations(widgets)
  const each = flows && nfe ? `, ${words.say('eachStage', { evaluations: words.count('evaluations', nfe) })}` : ''
  return words.say('to', { size: end }) + each
}

/** "2 stages, 8 evaluations", that there are none, or why nfe does not fit the solver. */
function work(stages, widgets, words) {
  if (widgets.alone) return words.say('alone')
  const each = widgets.perStep
  const many = words.count('stages', stages)
  if (each === 0) return `${many}, ${words.say('asNeeded')}`
  const nfe = evaluations(widgets)
  if (nfe == null || each == null) return many
  if (nfe % each) {
    const whose = widgets.nfe === OWN_NFE ? `, ${words.say('notOwn', { count: nfe })}` : ''
    return words.say('multiples', { solver: widgets.solver, count: each }) + whose
  }
  return `${many}, ${words.count('evaluations', stages * nfe)}`
}

/**
 * The model's own numbers where the widgets ask for them: "the model's own: nfe 4, noise step 100"; "" for none. A strength
 * of 1 changes nothing and is not told, and without the flow none is.
 */
export function ownNumbers({ nfe, noise_step, strength, modelNfe, modelNoiseStep, modelStrength = 1, alone }, words) {
  if (alone) return ''
  const own = []
  if (nfe === OWN_NFE && modelNfe != null) own.push(words.say('nfe', { count: modelNfe }))
  if (noise_step === OWN_NOISE_STEP && modelNoiseStep != null) own.push(words.say('noiseStep', { count: modelNoiseStep }))
  if (strength === OWN_STRENGTH && modelStrength !== 1) own.push(words.say('strength', { count: modelStrength }))
  return own.length ? words.say('own', { numbers: own.join(', ') }) : ''
}

/** The evaluations of a stage: the widget's number or the model's own; null or undefined where it is not known. */
function evaluations({ nfe, modelNfe }) {
  return nfe === OWN_NFE ? modelNfe : nfe
}
