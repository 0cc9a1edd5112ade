// The latest pictures, in the browser's database, or in memory where there is none.

const NAME = "kilonova.pictures";
const STORE = "entries";
const MAX_ENTRIES = 40;

/** An entry is { id, time, model, draft, pictures, mask, size, duration, cost }, with Blobs for pictures. */
export class History {
  entries = []; // The latest first.
  #database = null;

  /** Reads what was kept. Never fails. */
  async open() {
    try {
      this.#database = await result(prepare(indexedDB.open(NAME, 1)));
      const kept = await result(this.#store("readonly").getAll());
      this.entries = [...this.entries, ...kept].sort((a, b) => b.time - a.time);
    } catch {
      this.#database = null;
    }
  }

  add(entry) {
    this.entries.unshift(entry);
    this.#write((store) => store.put(entry));
    for (const { id } of this.entries.slice(MAX_ENTRIES)) this.remove(id);
  }

  remove(id) {
    this.entries = this.entries.filter((entry) => entry.id !== id);
    this.#write((store) => store.delete(id));
  }

  clear() {
    this.entries = [];
    this.#write((store) => store.clear());
  }

  #write(change) {
    try {
      if (this.#database) change(this.#store("readwrite"));
    } catch {
      // The database is full or gone: this visit's pictures are still in memory.
    }
  }

  #store(mode) {
    return this.#database.transaction(STORE, mode).objectStore(STORE);
  }
}

function prepare(request) {
  request.addEventListener("upgradeneeded", () => request.result.createObjectStore(STORE, { keyPath: "id" }));
  return request;
}

function result(request) {
  return new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result));
    request.addEventListener("error", () => reject(request.error));
  });
}
