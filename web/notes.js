// The warnings of the last runs, by the ids of their nodes: they outlive the nodes of the page and the page itself.
// A node whose result is cached does not run, and the host does not send its warnings again.

const KEY = 'FMBoost.warnings'
const MOST = 200 // nodes; the oldest are forgotten

/** Warnings in a storage such as `sessionStorage`. Where the browser refuses it, nothing is remembered. */
export class Notes {
  constructor(storage) {
    this.storage = storage
  }

  /** The warnings of a node's last run; none for an unknown node. */
  of(id) {
    return this.all()[`#${id}`] ?? []
  }

  /** Remember the warnings of a run. None are nothing to remember. */
  set(id, warnings) {
    const { [`#${id}`]: before, ...others } = this.all() // "#": keys that look like numbers have no order of insertion
    if (!before && !warnings.length) return
    const kept = Object.entries(warnings.length ? { ...others, [`#${id}`]: warnings } : others).slice(-MOST)
    try {
      this.storage.setItem(KEY, JSON.stringify(Object.fromEntries(kept)))
    } catch {
      // full or refused
    }
  }

  all() {
    try {
      return JSON.parse(this.storage.getItem(KEY)) ?? {}
    } catch {
      return {}
    }
  }
}
