// Making elements, and figures as people read them.

const SVG = "http://www.w3.org/2000/svg";

function filled(made, attributes, content) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...(Array.isArray(content) ? content : [content]).filter((each) => each !== null && each !== ""));
  return made;
}

export function element(name, attributes = {}, content = []) {
  return filled(document.createElement(name), attributes, content);
}

export function shape(name, attributes = {}, content = []) {
  return filled(document.createElementNS(SVG, name), attributes, content);
}

export function byId(id) {
  return document.getElementById(id);
}

export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (!Number.isFinite(value) || value === 0) return String(value);
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value)) + 1e-9));
  return value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

export function usd(value) {
  if (value === null || value === undefined) return "–";
  if (Math.abs(value) >= 100) return `$${Math.round(value).toLocaleString("en-US")}`;
  return Math.abs(value) >= 1 || value === 0 ? `$${value.toFixed(2)}` : `$${number(value)}`;
}

export function scaled(value, unit) {
  const steps = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const step = steps.find(([size]) => Math.abs(value) >= size);
  return step ? `${number(value / step[0])} ${step[1]}${unit}` : `${number(value)} ${unit}`;
}

export function power(kw) {
  if (kw === null || kw === undefined) return "–";
  const plain = (figure) => String(Number(figure.toPrecision(4)));
  return kw >= 1000 ? `${plain(kw / 1000)} MW` : `${plain(kw)} kW`;
}

export function percent(value) {
  const size = Math.abs(value) >= 10 ? Math.round(value).toLocaleString("en-US") : value.toFixed(1);
  return `${value > 0 ? "+" : ""}${size} %`.replace("-", "−");
}

export function table(headings, rows, { numeric = [], caption = "" } = {}) {
  const cell = (kind, value, column, more = {}) => element(
    kind, { class: numeric.includes(column) ? "number" : null, ...more }, value instanceof Node ? [value] : String(value),
  );
  return element("table", {}, [
    caption ? element("caption", {}, caption) : null,
    element("thead", {}, [element("tr", {}, headings.map((each, i) => cell("th", each, i, { scope: "col" })))]),
    element("tbody", {}, rows.map((row) => element("tr", {}, row.map((each, i) =>
      (i === 0 ? cell("th", each, i, { scope: "row" }) : cell("td", each, i)))))),
  ]);
}
