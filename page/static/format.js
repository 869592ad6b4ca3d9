// Numbers and times as people read them.

// passed is a time between two moments, in words: "3 min".
export function duration(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "";
  if (seconds < 1) return Math.round(seconds * 1000) + " ms";
  if (seconds < 10) return seconds.toFixed(1) + " s";
  if (seconds < 60) return Math.round(seconds) + " s";
  if (seconds < 3600) return Math.floor(seconds / 60) + " min " + Math.floor(seconds % 60) + " s";
  if (seconds < 86400) return Math.floor(seconds / 3600) + " h " + Math.floor((seconds % 3600) / 60) + " min";
  return Math.floor(seconds / 86400) + " d " + Math.floor((seconds % 86400) / 3600) + " h";
}

// age is how long ago a moment was, roughly.
export function age(when, now = Date.now()) {
  const seconds = (now - when) / 1000;
  if (seconds < 5) return "now";
  if (seconds < 60) return Math.floor(seconds) + " s ago";
  if (seconds < 3600) return Math.floor(seconds / 60) + " min ago";
  if (seconds < 86400) return Math.floor(seconds / 3600) + " h ago";
  return Math.floor(seconds / 86400) + " d ago";
}

// moment is the milliseconds of a time as Go writes it; undefined where there is none.
export function moment(text) {
  const at = text ? Date.parse(text) : NaN;
  return Number.isFinite(at) && at > 0 ? at : undefined;
}

const full = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });

export const date = (when) => (when === undefined ? "" : full.format(when));
// shortDate is without year and seconds: "03-09 02:00".
export const shortDate = (when) => date(when).slice(5, 16);

// clock is the time of day with milliseconds.
export function clock(when) {
  if (when === undefined) return "";
  const d = new Date(when);
  return d.toTimeString().slice(0, 8) + "." + String(d.getMilliseconds()).padStart(3, "0");
}

export function bytes(n) {
  if (!Number.isFinite(n)) return "";
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (n < 1024 || unit === "GiB") return (unit === "B" || n >= 100 ? Math.round(n) : n.toFixed(1)) + " " + unit;
    n /= 1024;
  }
}

// figure is a number of a metric, in the unit that its name ends with.
export function figure(name, value) {
  if (!Number.isFinite(value)) return "";
  if (/_seconds$/.test(name)) return seconds(value);
  if (/_bytes$/.test(name)) return bytes(value);
  return plain(value);
}

function seconds(v) {
  const size = Math.abs(v);
  if (size === 0) return "0 s";
  if (size < 1e-6) return plain(v * 1e9) + " ns";
  if (size < 1e-3) return plain(v * 1e6) + " µs";
  if (size < 1) return plain(v * 1e3) + " ms";
  return plain(v) + " s";
}

export function plain(v) {
  if (Number.isInteger(v)) return v.toLocaleString("en");
  const size = Math.abs(v);
  if (size >= 1000) return Math.round(v).toLocaleString("en");
  if (size !== 0 && size < 0.001) return v.toExponential(2);
  return String(Number(v.toPrecision(3)));
}

// count is a number with its noun: "1 instance", "10,000 instances".
export const count = (n, noun) => n.toLocaleString("en") + " " + noun + (n === 1 ? "" : "s");

// value is a parameter as it is written.
export const value = (v) => (typeof v === "string" ? v : JSON.stringify(v));
