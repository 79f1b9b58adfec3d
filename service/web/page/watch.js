// The watch: what live rows come to, asked for again and again for the version and the norm that are open.

import * as api from "./api.js";
import { same } from "./address.js";

export class Watch {
  // Of which version, whether its server looks at live rows at all, what it last said, and of which window and norm all channels are known.
  #key = null;
  #watches = true;
  #norm = null;
  #channels = { of: null, known: null };
  report = null;

  /** `changed` takes a report (or null), and all channels of the open norm (or null). */
  constructor(changed) {
    this.changed = changed;
  }

  /** Another version, or the same of a server that may have changed. */
  begin(key) {
    if (!same(key, this.#key)) this.report = null;
    [this.#key, this.#watches, this.#channels] = [key, true, { of: null, known: null }];
  }

  /** Another norm is open. */
  async open(norm) {
    this.#norm = norm;
    await this.#tell();
  }

  /** Asks, unless the server has said that it does not look at live rows. */
  async look() {
    const key = this.#key;
    if (!key || !this.#watches) return;
    const report = await api.drift(key);
    if (this.#key !== key) return;
    this.#watches = report !== null;
    this.report = report;
    await this.#tell();
  }

  /** Why nothing looks at the rows of this version; null where something does, or nothing is known yet. */
  get absence() {
    const state = this.report?.state;
    if (!this.#watches) return "This server does not look at what reaches the norms.";
    if (state === "off") return "Drift is off: nothing looks at what reaches the norms. Start with --drift input or all to see it.";
    return state === "failed" ? `${this.report.meaning} Nothing is known of what reaches the norms.` : null;
  }

  async #tell() {
    const [key, norm, report] = [this.#key, this.#norm, this.report];
    this.changed(report, this.#known(norm));
    if (!report?.layers.some(({ name }) => name === norm)) return;
    const of = `${norm} ${report.judged_at}`;
    if (this.#channels.of === of) return;
    const known = await api.driftAt(key, norm);
    if (this.#key !== key || this.#norm !== norm) return;
    this.#channels = { of, norm, known };
    this.changed(this.report, known);
  }

  #known(norm) {
    return this.#channels.norm === norm ? this.#channels.known : null;
  }
}
