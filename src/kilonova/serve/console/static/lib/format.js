// Numbers and times as people read them.

const whole = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const day = new Intl.DateTimeFormat("en", { day: "numeric", month: "short", timeZone: "UTC" });
const moment = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });

export const count = (number) => whole.format(number);

export const short = (number) => compact.format(number);

/** Dollars with as many places as it takes to see two digits that are not zero. */
export function dollars(amount) {
  if (amount === 0) return "$0";
  const places = Math.min(12, Math.max(2, 1 - Math.floor(Math.log10(Math.abs(amount)))));
  return `$${amount.toFixed(places).replace(/(\.\d\d\d*?)0+$/, "$1")}`;
}

export function seconds(amount) {
  return amount < 10 ? `${amount.toFixed(2)} s` : `${amount.toFixed(1)} s`;
}

/** How long to wait, in the unit that fits: budgets come back after days. */
export function wait(amount) {
  if (amount < 120) return `${amount} s`;
  return amount < 7200 ? `${Math.ceil(amount / 60)} min` : `${Math.ceil(amount / 3600)} h`;
}

/** "1 answer", "2 answers". */
export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** A calendar day such as "2026-11-21", without its year. */
export const shortDay = (text) => day.format(new Date(`${text}T00:00:00Z`));

export const dateTime = (text) => moment.format(new Date(text));
