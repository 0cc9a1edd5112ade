// What the browser keeps, as JSON. Reading never fails; writing says whether it worked.

/** The value under `name`, or `fallback` where there is none or it cannot be read. */
export function read(name, fallback, area = localStorage) {
  try {
    const text = area.getItem(name);
    return text === null ? fallback : JSON.parse(text);
  } catch {
    return fallback;
  }
}

/** Keeps `value` under `name`, or forgets it when it is null; false where the browser does not let us. */
export function write(name, value, area = localStorage) {
  try {
    if (value === null) area.removeItem(name);
    else area.setItem(name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

/** Every name that starts with `prefix`. */
export function names(prefix, area = localStorage) {
  try {
    return Object.keys(area).filter((name) => name.startsWith(prefix));
  } catch {
    return [];
  }
}
