// Lists the operations that openapi.json describes.
import { element } from "./dom.js";

const place = document.getElementById("operations");

function schemaName(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.type === "array") return `list of ${schemaName(schema.items) || "values"}`;
  return schema.title || schema.type || "";
}

function content(body) {
  const [kind, held] = Object.entries(body?.content || {})[0] || [];
  return kind ? `${schemaName(held.schema)} (${kind})`.trim() : "";
}

function operation(path, method, said) {
  const rows = [];
  for (const each of said.parameters || []) {
    rows.push([`${each.name} (${each.in})`, each.description || schemaName(each.schema)]);
  }
  if (said.requestBody) rows.push(["body", content(said.requestBody)]);
  rows.push(["answer", content(said.responses["200"])]);
  return element("section", {}, [
    element("h2", {}, [element("code", {}, `${method.toUpperCase()} ${path}`)]),
    element("p", {}, said.description || said.summary || ""),
    element("table", {}, rows.map(([name, value]) =>
      element("tr", {}, [element("th", { scope: "row" }, name), element("td", {}, value)]))),
  ]);
}

function fields(name, schema) {
  const rows = Object.entries(schema.properties || {}).map(([field, said]) => {
    const kinds = (said.anyOf || [said]).map(schemaName).filter(Boolean).join(" or ");
    const standard = said.default === undefined ? "" : JSON.stringify(said.default);
    return element("tr", {}, [
      element("th", { scope: "row" }, [element("code", {}, field)]), element("td", {}, kinds), element("td", {}, standard),
    ]);
  });
  return element("section", {}, [
    element("h2", {}, name),
    element("p", {}, schema.description || ""),
    element("table", {}, [
      element("tr", {}, ["field", "kind", "default"].map((each) => element("th", { scope: "col" }, each))), ...rows,
    ]),
  ]);
}

const answer = await fetch("/openapi.json");
const described = await answer.json();
const sections = Object.entries(described.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, said]) => operation(path, method, said)));
const asked = ["PlanQuestion", "FrontierQuestion", "ProblemDocument"]
  .map((name) => fields(name, described.components.schemas[name]));
place.replaceChildren(...sections, ...asked);
