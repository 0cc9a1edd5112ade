// Who we are to the server, and what it told us about itself.

import { read, write } from "./storage.js";

const KEY = "kilonova.key";

/**
 * Announces "change" whenever one of its members does.
 *
 * `state` is "loading", "ready", "locked" (the server asks for a key that we lack) or "gone" (it does not answer).
 * `info` is the answer of /kilonova/info, from the last time that it was ready.
 */
class Session extends EventTarget {
  state = "loading";
  info = null;
  // The key is kept for this tab alone, and forgotten when it is closed.
  key = read(KEY, "", sessionStorage);

  set(state, info = this.info) {
    if (state === this.state && info === this.info) return;
    this.state = state;
    this.info = info;
    this.dispatchEvent(new Event("change"));
  }

  useKey(key) {
    this.key = key;
    write(KEY, key || null, sessionStorage);
  }
}

export const session = new Session();
