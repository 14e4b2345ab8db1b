// The lines on each node, which say what the node will make, and the warnings of its last run. Templates are said in the
// page's language.

import { api } from '../../scripts/api.js'
import { app } from '../../scripts/app.js'
import { Notes } from './notes.js'
import { UNIT, ownNumbers, summary } from './size.js'
import { hasNote, translate } from './templates.js'
import { isAlone, modelInto, sizeInto, strengthBehind, valueOf, wishOf } from './upstream.js'
import { wordsIn } from './words.js'

// input: of what the size is known before the run; unit: pixels to which it is rounded; flows: whether it evaluates.
const NODES = {
  FMBoostUpscale: { input: 'latent', unit: UNIT, flows: true },
  FMBoostUpscaleImage: { input: 'image', unit: 1, flows: true },
  FMBoostPSUUpsample: { input: 'latent', unit: UNIT, flows: false },
  FMBoostNoiseAugment: {},
  FMBoostCFMSample: {},
}
const SIZE_WIDGETS = { scale: 'scale', width: 'width x height', height: 'width x height', megapixels: 'megapixels' }
const FLOW_WIDGETS = ['nfe', 'noise_step', 'strength', 'solver']
const REFRESH_MS = 250
const LINE_PIXELS = 18
const MARGIN_PIXELS = 4
const NARROWEST_PIXELS = 120
const notes = new Notes(window.sessionStorage)

app.registerExtension({
  name: 'FMBoost.faces',

  async beforeConfigureGraph(graph) {
    if (!hasNote(graph)) return
    await askForTexts()
    translate(graph, pageWords()?.texts.templates)
  },

  nodeCreated(node) {
    if (!node.comfyClass?.startsWith('FMBoost')) return
    const before = node.onExecuted
    node.onExecuted = function (output) {
      before?.apply(this, arguments)
      warn(this, output?.text ?? [])
    }
    if (NODES[node.comfyClass]) refresh(node)
  },

  setup() {
    // A size depends on nodes far upstream, and the two canvases report changes in different ways. Checking our few
    // nodes at intervals costs little and misses no change.
    setInterval(() => ourNodes().forEach(look), REFRESH_MS)
    // A node without warnings sends no message, so its old warnings are removed when it runs again.
    api.addEventListener('executing', ({ detail }) => nodesOf([detail]).forEach((node) => warn(node, [])))
    // A node with a cached result does not run. Its warnings still hold, also on a page that was loaded since.
    api.addEventListener('execution_cached', ({ detail }) => {
      for (const node of nodesOf(detail?.nodes ?? [])) {
        const warnings = notes.of(node.id)
        if (warnings.length) show(node, { warnings })
      }
    })
  },
})

/** Our nodes of the host's ids; in a subgraph, the ids of the nodes around it come first. */
function nodesOf(ids) {
  const last = new Set(ids.map((id) => String(id).split(':').pop()))
  return ourNodes().filter((node) => last.has(String(node.id)))
}

function warn(node, warnings) {
  notes.set(node.id, warnings)
  show(node, { warnings })
}

/** Our nodes in the graph on the screen, which may be a subgraph. */
function ourNodes() {
  const nodes = (app.canvas?.graph ?? app.graph)?.nodes ?? []
  return nodes.filter((node) => node.comfyClass?.startsWith('FMBoost'))
}

function look(node) {
  refresh(node)
  grow(node)
}

function refresh(node) {
  const words = pageWords()
  if (!(node.comfyClass in NODES) || !words) return show(node)
  const { input, unit, flows } = NODES[node.comfyClass]
  greyUnused(node)
  const model = modelFacts(modelInto(node)) ?? {}
  const behind = strengthBehind(node, (name) => modelFacts(name)?.guide)
  const modelStrength = behind === null ? model.strength : behind
  const facts = { modelScale: model.scale, modelNfe: model.nfe, modelNoiseStep: model.noise_step, modelStrength }
  const own = { ...facts, oneStage: behind !== null, alone: isAlone(node, behind) }
  const flow = Object.fromEntries(FLOW_WIDGETS.map((name) => [name, valueOf(node, name)]))
  const widgets = { ...wishOf(node), ...flow, ...own, perStep: solverFacts(flow.solver) }
  const line = input ? summary(sizeInto(node, input, pictureSize), widgets, words, unit, flows) : ''
  show(node, { lines: [line, ownNumbers(widgets, words)] })
}

/** Make room for a text of more lines, whose height is known after layout. The newer canvas does this itself. */
function grow(node) {
  const face = faces.get(node)
  if (!face?.element || face.height() === face.reserved || window.LiteGraph?.vueNodesMode) return
  face.reserved = face.height()
  const [width, tall] = node.computeSize()
  node.setSize([Math.max(width, node.size[0]), Math.max(tall, node.size[1])])
}

/** Disable the size widgets that `size_by` leaves unused. They keep their place and their value. */
function greyUnused(node) {
  const choice = valueOf(node, 'size_by')
  for (const widget of node.widgets ?? []) {
    const unused = widget.name in SIZE_WIDGETS && SIZE_WIDGETS[widget.name] !== choice
    if (widget.name in SIZE_WIDGETS && Boolean(widget.disabled) !== unused) widget.disabled = unused
  }
}

/** A function from a name to the host's facts about it at a route; undefined until the host has answered. */
function factsFrom(route) {
  const facts = new Map()
  const remember = (found) => Object.entries(found).forEach(([name, value]) => facts.set(name, value))
  return (name) => {
    if (name && !facts.has(name)) {
      facts.set(name, undefined)
      api.fetchApi(route).then((answer) => answer.json()).then(remember, () => {})
    }
    return facts.get(name)
  }
}

const modelFacts = factsFrom('/fmboost/models') // {scale, nfe, noise_step, strength, guide}
const solverFacts = factsFrom('/fmboost/solvers') // evaluations per step, 0 for an adaptive solver

let served // the texts of all languages
let answer = null
const byLanguage = new Map()

/** Ask the host for the texts, once. */
function askForTexts() {
  answer ??= api.fetchApi('/i18n').then((found) => found.json()).then((texts) => (served = texts), () => {})
  return answer
}

/** The words of the page's language; null until the host has answered. */
function pageWords() {
  askForTexts()
  const language = app.ui.settings.getSettingValue('Comfy.Locale') ?? navigator.language
  if (served && !byLanguage.has(language)) byLanguage.set(language, wordsIn(served, language))
  return byLanguage.get(language) ?? null
}

const pictures = new Map() // by LoadImage's value

/** The size of an image in the host's folders; null until it is loaded. */
function pictureSize(value) {
  if (!value) return null
  if (!pictures.has(value)) {
    pictures.set(value, null)
    const [, path, type] = /^(.*?)(?: \[(\w+)\])?$/.exec(value)
    const parts = path.split('/')
    const query = new URLSearchParams({ filename: parts.pop(), subfolder: parts.join('/'), type: type ?? 'input' })
    const image = new Image()
    image.onload = () => pictures.set(value, { width: image.naturalWidth, height: image.naturalHeight })
    image.src = api.apiURL(`/view?${query}`)
  }
  return pictures.get(value)
}

// --- the face of a node: its lines and the warnings below them; made with the first text

const faces = new WeakMap() // by node

function show(node, news = {}) {
  const face = faces.get(node) ?? { lines: [], warnings: [] }
  Object.assign(face, news)
  faces.set(node, face)
  const lines = face.lines.filter(Boolean)
  const warnings = face.warnings.map((warning) => pageWords()?.warning(warning) ?? warning)
  const text = [...lines, ...warnings].join('\n')
  if (text === (face.text ?? '')) return
  face.text = text
  if (!face.element) Object.assign(face, addFace(node))
  const paragraphs = [...lines.map((line) => paragraph(line)), ...warnings.map((warning) => paragraph(warning, true))]
  face.element.replaceChildren(...paragraphs)
  node.setDirtyCanvas?.(true, true)
}

function paragraph(text, warns = false) {
  const element = document.createElement('div')
  element.textContent = text
  if (warns) element.style.color = 'var(--p-amber-500, orange)'
  return element
}

/** Add the widget as the last one. It is never saved in a workflow. Returns its element and its height. */
function addFace(node) {
  const frame = document.createElement('div')
  const inner = document.createElement('div')
  // The mouse goes through it, so that the node can be dragged there.
  frame.style.pointerEvents = 'none'
  inner.style.cssText = 'color: var(--input-text); text-align: center; text-wrap: balance;'
  inner.style.font = `12px/${LINE_PIXELS}px sans-serif`
  inner.setAttribute('aria-live', 'polite')
  frame.append(inner)
  // Before layout the element is as narrow as a word, and many lines high.
  const lines = () => (inner.offsetWidth < NARROWEST_PIXELS ? LINE_PIXELS : Math.max(LINE_PIXELS, inner.offsetHeight))
  const height = () => lines() + 2 * MARGIN_PIXELS
  const widget = node.addDOMWidget('fmboost_face', 'fmboost_face', frame, {
    serialize: false,
    hideOnZoom: false,
    margin: MARGIN_PIXELS,
    getMinHeight: height,
    getMaxHeight: height,
  })
  widget.serialize = false
  const [width, tall] = node.computeSize()
  node.setSize([Math.max(width, node.size[0]), Math.max(tall, node.size[1])])
  return { element: inner, height }
}
