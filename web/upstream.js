// The size of a node's input, found by walking the graph upstream to a node that determines it.
// `look(value)` returns the size of an input image, or null while it is not known.

import { AUTO_METHOD, BUNDLED_STRENGTH, ENLARGED_STRENGTH, OWN_STRENGTH, UNIT, round, targetSize, toUnit } from './size.js'

const BYPASSED = 4
const BUNDLED_UPSCALE_MODELS = ['fmboost-image-x2.safetensors', 'fmboost-latent-x2.safetensors']
const LONGEST_WALK = 200 // a loop of links must not hang the page

// Nodes that keep the size of one of their inputs.
const KEEPS = {
  FMBoostNoiseAugment: 'latent',
  FMBoostCFMSample: 'start',
  FMBoostRestore: 'image',
  KSampler: 'latent_image',
  KSamplerAdvanced: 'latent_image',
  SamplerCustom: 'latent_image',
  SamplerCustomAdvanced: 'latent_image',
  VAEDecode: 'samples',
  VAEDecodeTiled: 'samples',
  SetLatentNoiseMask: 'samples',
  RepeatLatentBatch: 'samples',
  LatentFromBatch: 'samples',
  RepeatImageBatch: 'image',
  ImageFromBatch: 'image',
  ImageInvert: 'image',
  ImageBlur: 'image',
  ImageSharpen: 'image',
}

// Nodes that determine a size. `walk(name)` returns the size at one of their inputs.
const MAKES = {
  EmptyLatentImage: (node) => wholeLatents(sides(node)),
  EmptySD3LatentImage: (node) => wholeLatents(sides(node)),
  EmptyImage: (node) => sides(node),
  LoadImage: (node, walk, look) => look(valueOf(node, 'image')),
  ImageScale: (node, walk) => asked(sides(node), () => walk('image'), 1),
  ImageScaleBy: (node, walk) => times(walk('image'), valueOf(node, 'scale_by'), 1),
  LatentUpscale: (node, walk) => wholeLatents(asked(sides(node), () => walk('samples'), UNIT)),
  LatentUpscaleBy: (node, walk) => times(walk('samples'), valueOf(node, 'scale_by'), UNIT),
  VAEEncode: (node, walk) => wholeLatents(walk('pixels')),
  VAEEncodeTiled: (node, walk) => wholeLatents(walk('pixels')),
  VAEEncodeForInpaint: (node, walk) => wholeLatents(walk('pixels')),
  FMBoostPSUUpsample: (node, walk) => ours(node, walk('latent'), UNIT),
  FMBoostUpscale: (node, walk) => ours(node, walk('latent'), UNIT),
  FMBoostUpscaleImage: (node, walk) => ours(node, walk('image'), 1),
}

/** The size {width, height} in pixels at the input of that name; null: not known. */
export function sizeInto(node, name, look, steps = LONGEST_WALK) {
  const slot = node.inputs?.findIndex((input) => input.name === name) ?? -1
  const from = slot < 0 ? null : inputNode(node, slot)
  if (!from || steps === 0) return null
  const walk = (input) => sizeInto(from, input, look, steps - 1)
  const handsOn = from.mode === BYPASSED || from.type === 'Reroute'
  const through = handsOn ? firstLike(from, node.inputs[slot]) : KEEPS[from.type]
  if (through !== undefined) return walk(through)
  if (from.mode === BYPASSED) return null
  return MAKES[from.type]?.(from, walk, look) ?? null
}

/** The name of the model that the Load CFM before a node selects; null: not known. */
export function modelInto(node) {
  const from = sourceOf(node, 'cfm')
  return from?.type === 'FMBoostLoadCFM' ? valueOf(from, 'model') : null
}

/**
 * The own strength of the upscale model that enlarges the pictures of a node's guides, at the node or where its guide
 * comes from; null: none does, undefined: not known. `guideOf(name)` is the guide method of a model.
 */
export function strengthBehind(node, guideOf) {
  if (node.inputs?.some((input) => input.name === 'upscale_model')) {
    const from = sourceOf(node, 'upscale_model')
    if (from) return isBundled(from) ? BUNDLED_STRENGTH : ENLARGED_STRENGTH
    if (from === undefined) return undefined
    return valueOf(node, 'method') === AUTO_METHOD ? strengthByItself(node, guideOf) : null
  }
  const guide = sourceOf(node, 'guide')
  if (guide === undefined) return undefined
  return guide?.type === 'FMBoostPSUUpsample' ? strengthBehind(guide, guideOf) : null // other latents tell of none
}

/** The same for the method auto with no upscale model connected: the bundled one's, where the model has no guide network. */
function strengthByItself(node, guideOf) {
  const model = sourceOf(node, 'cfm') === null ? 'psu' : guideOf(modelInto(node))
  return model && (model === 'psu' ? BUNDLED_STRENGTH : null)
}

/**
 * Whether a node makes a picture without the flow: behind a bundled upscale model, where neither a strength nor a latent is
 * asked for. behind: what `strengthBehind` says of the node.
 */
export function isAlone(node, behind) {
  if (behind !== BUNDLED_STRENGTH || valueOf(node, 'strength') !== OWN_STRENGTH) return false
  if (node.type === 'FMBoostUpscaleImage') return valueOf(node, 'restore') === true
  const latent = node.outputs?.[0]
  return node.type === 'FMBoostUpscale' && valueOf(node, 'decode') === true && !latent?.links?.length
}

/** The node that feeds an input, seen through reroutes and bypassed nodes; null: none does, undefined: not known. */
function sourceOf(node, name, steps = LONGEST_WALK) {
  const slot = node.inputs?.findIndex((input) => input.name === name) ?? -1
  if (slot < 0 || node.inputs[slot].link == null) return null
  const from = inputNode(node, slot)
  if (!from || steps === 0) return undefined
  if (from.mode !== BYPASSED && from.type !== 'Reroute') return from
  return sourceOf(from, firstLike(from, node.inputs[slot]), steps - 1)
}

/** Whether a node loads a bundled upscale model. */
function isBundled(node) {
  return node.type === 'UpscaleModelLoader' && BUNDLED_UPSCALE_MODELS.includes(valueOf(node, 'model_name'))
}

/** The node at the other end of an input's link; none for a node that is not in a graph yet. */
function inputNode(node, slot) {
  return node.graph ? node.getInputNode(slot) : null
}

/** The name of the first connected input that a bypassed node, or a reroute, passes on. */
function firstLike(node, wanted) {
  const alike = (input) => input.link != null && (node.type === 'Reroute' || input.type === wanted.type)
  return node.inputs?.find(alike)?.name
}

/** A widget's value. Where a link decides it: the value of a primitive at the link's other end, or null. */
export function valueOf(node, name) {
  const slot = node.inputs?.findIndex((input) => input.widget?.name === name && input.link != null) ?? -1
  if (slot < 0) return node.widgets?.find((widget) => widget.name === name)?.value ?? null
  const from = inputNode(node, slot)
  return from?.type?.startsWith('Primitive') ? (from.widgets?.[0]?.value ?? null) : null
}

function sides(node) {
  const width = valueOf(node, 'width')
  const height = valueOf(node, 'height')
  return width == null || height == null ? null : { width, height }
}

/** The size that one of the host's scale nodes makes: a side of 0 follows the input's aspect, two keep its size. */
function asked(size, walk, unit) {
  if (!size || (size.width && size.height)) return size
  const start = walk()
  if (!start || (!size.width && !size.height)) return start
  const ratio = size.width ? size.width / start.width : size.height / start.height
  return toUnit({ width: size.width || start.width * ratio, height: size.height || start.height * ratio }, unit)
}

function times(size, ratio, unit) {
  if (!size || ratio == null) return null
  return { width: round((size.width / unit) * ratio) * unit, height: round((size.height / unit) * ratio) * unit }
}

/** The size rounded down to whole latents. */
function wholeLatents(size) {
  const cut = (side) => Math.floor(side / UNIT) * UNIT
  return size && { width: cut(size.width), height: cut(size.height) }
}

/** The size that one of our own nodes makes. */
function ours(node, start, unit) {
  const wish = wishOf(node)
  if (wish.size_by === 'width x height' && wish.width && wish.height) return toUnit(wish, unit)
  const end = start && wish[wish.size_by] != null ? targetSize(start, wish, unit) : null
  return end?.problem ? null : end
}

/** The values of our node's size widgets. */
export function wishOf(node) {
  const names = ['size_by', 'scale', 'width', 'height', 'megapixels']
  return Object.fromEntries(names.map((name) => [name, valueOf(node, name)]))
}
