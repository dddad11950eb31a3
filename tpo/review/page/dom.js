// Elements and requests. Text goes in as text: nothing here or elsewhere on this page makes markup of data.

export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "text") element.textContent = value;
    else if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

// An element with the text of data in it, in the direction of that text.
export function said(tag, text, properties = {}) {
  return el(tag, { dir: "auto", text, ...properties });
}

export async function ask(address, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== ""));
  return answered(query.size ? `${address}?${query}` : address);
}

export async function tell(address, content) {
  const headers = { "Content-Type": "application/json" };
  return answered(address, { method: "POST", headers, body: JSON.stringify(content) });
}

async function answered(address, options) {
  const response = await fetch(address, options).catch(() => {
    throw new Error("The server does not answer. Is `tpo review` still running?");
  });
  if (response.ok) return response.json();
  const text = await response.text();
  let problem = text.trim() || response.statusText;
  try {
    problem = JSON.parse(text).problem ?? problem;
  } catch {
    // It was no JSON, so the text says it.
  }
  throw new Error(problem);
}

const told = document.getElementById("told");
let quietAt = 0;

export function say(text, seconds = 6) {
  told.textContent = text;
  told.classList.toggle("is-shown", Boolean(text));
  clearTimeout(quietAt);
  if (seconds) quietAt = setTimeout(() => told.classList.remove("is-shown"), seconds * 1000);
}

// A text of data among other words, so that its direction ends with it (Unicode's first strong isolate).
export const isolated = (text) => `\u2068${text}\u2069`;
export const words = (name) => name.replaceAll("_", " ");
export const clock = (seconds) => {
  const tenths = Math.round(seconds * 10);
  const minutes = Math.floor(tenths / 600);
  return `${minutes}:${((tenths % 600) / 10).toFixed(1).padStart(4, "0")}`;
};
