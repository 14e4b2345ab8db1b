// Target sizes, stages and the line on a node, as pure functions. A size is {width, height} in pixels.
// The arithmetic is that of fmboost_core/sampling/target.py (`Target.pixels`, `stage_sizes`).
// tests/test_web.py compares the two.

export const UNIT = 8 // pixels per latent along each side, in every family
export const MODEL_SCALE = 2 // upscale factor of a stage where the model is not known
export const OWN_NFE = 0 // the widget's value for the model's own number of function evaluations

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

/** The target size for an image of size `start`, or {problem} with a sentence. wish: the node's size widgets. */
export function targetSize(start, wish, unit = 1) {
  let wanted = { width: wish.width, height: wish.height }
  if (wish.size_by !== 'width x height') {
    const area = start.width * start.height
    const ratio = wish.size_by === 'megapixels' ? Math.sqrt((wish.megapixels * 1e6) / area) : wish.scale
    wanted = { width: start.width * ratio, height: start.height * ratio }
  }
  const end = toUnit(wanted, unit)
  if (Math.max(end.width, end.height) > MAX_SIDE || end.width * end.height > MAX_PIXELS) {
    return { problem: `${shown(end)} pixels are too many` }
  }
  if (end.width < start.width || end.height < start.height) {
    return { problem: `${shown(end)} is smaller than the ${shown(start)} that comes in` }
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
 * is undefined where it is not known.
 * unit: 8 for latents, 1 for images.
 * flows: false for a node that only makes the guide.
 */
export function summary(start, widgets, unit, flows = true) {
  const used = { scale: ['scale'], 'width x height': ['width', 'height'], megapixels: ['megapixels'] }[widgets.size_by]
  if (!used || used.some((name) => widgets[name] == null)) return 'size known when it runs'
  if (flows && widgets.modelScale <= 1) return 'this model does not enlarge'
  if (!start) return unknownStart(widgets, unit, flows)
  const end = targetSize(start, widgets, unit)
  if (end.problem) return end.problem
  if (!flows) return `${shown(start)} → ${shown(end)}`
  const sizes = stageSizes(start, end, unit, widgets.modelScale)
  return `${[start, ...sizes].map(shown).join(' → ')}, ${work(sizes.length, widgets)}`
}

function unknownStart(widgets, unit, flows) {
  if (widgets.size_by === 'scale') {
    return `${widgets.scale}x` + (flows ? `, ${work(stageCount(widgets.scale, widgets.modelScale), widgets)}` : '')
  }
  const area = plural(widgets.megapixels, 'megapixel')
  const end = widgets.size_by === 'megapixels' ? area : shown(toUnit(widgets, unit))
  const nfe = widgets.perStep && evaluations(widgets)
  return `to ${end}` + (flows && nfe ? `, ${plural(nfe, 'evaluation')} a stage` : '')
}

/** "2 stages, 8 evaluations", or why nfe does not fit the solver. */
function work(stages, widgets) {
  const each = widgets.perStep
  if (each === 0) return `${plural(stages, 'stage')}, as many evaluations as needed`
  const nfe = evaluations(widgets)
  if (nfe == null || each == null) return plural(stages, 'stage')
  const whose = widgets.nfe === OWN_NFE ? `, not the model's own ${nfe}` : ''
  if (nfe % each) return `but ${widgets.solver} takes multiples of ${each} evaluations${whose}`
  return `${plural(stages, 'stage')}, ${plural(stages * nfe, 'evaluation')}`
}

/** The evaluations of a stage: the widget's number or the model's own; null or undefined where it is not known. */
function evaluations({ nfe, modelNfe }) {
  return nfe === OWN_NFE ? modelNfe : nfe
}

function plural(count, word) {
  return `${count} ${word}${count === 1 ? '' : 's'}`
}
