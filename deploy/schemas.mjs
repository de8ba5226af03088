// Holds objects of KEDA, the Prometheus Operator and the Gateway API against the schemas of npm's
// @kubernetes-models. Reads a JSON array of objects of any kind; tells what is wrong with which, and
// exits with 1 if anything is. `node schemas.mjs NODE_MODULES < OBJECTS`.
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [modules] = process.argv.slice(2);
const PACKAGES = {
  "keda.sh/v1alpha1": "keda/keda.sh/v1alpha1",
  "monitoring.coreos.com/v1": "prometheus-operator/monitoring.coreos.com/v1",
  "gateway.networking.k8s.io/v1": "gateway-api/gateway.networking.k8s.io/v1",
};
const models = {};
for (const [version, folder] of Object.entries(PACKAGES)) {
  const path = join(resolve(modules), "@kubernetes-models", folder);
  models[version] = await import(pathToFileURL(createRequire(path + "/").resolve("./index.js")));
}

// The schemas let unknown keys pass. But whoever validates reads each key that it knows, and each of
// those that a map may have: what it has not read, it does not know.
function watched(value, path, unread) {
  if (value === null || typeof value !== "object") return value;
  const children = new Map();
  for (const [key, child] of Object.entries(value)) {
    const place = Array.isArray(value) ? `${path}[${key}]` : `${path}.${key}`;
    children.set(key, watched(child, place, unread));
    if (!Array.isArray(value)) unread.add(place);
  }
  return new Proxy(value, {
    get(target, key) {
      if (!Array.isArray(value)) unread.delete(`${path}.${String(key)}`);
      return children.has(key) ? children.get(key) : target[key];
    },
  });
}

const problems = [];
let count = 0;
for (const item of JSON.parse(readFileSync(0, "utf8"))) {
  if (!(item.apiVersion in models)) continue;
  count += 1;
  const name = `${item.kind} ${item.metadata?.name}`;
  const Model = models[item.apiVersion][item.kind];
  if (Model === undefined) {
    problems.push(`${name}: ${item.apiVersion} has no such kind`);
    continue;
  }
  const unread = new Set();
  const { apiVersion, kind, ...rest } = item;
  try {
    const model = new Model({});
    Object.assign(model, Object.fromEntries(Object.entries(watched({ r: rest }, "", unread).r)));
    model.validate();
  } catch (error) {
    problems.push(`${name}: ${error.message}`);
    continue;
  }
  for (const place of unread) problems.push(`${name}: ${place.replace(/^\.r\.?/, "")} is unknown`);
}
for (const problem of problems) console.error(problem);
if (count === 0) console.error("there is no object of an extension");
process.exit(problems.length === 0 && count > 0 ? 0 : 1);
