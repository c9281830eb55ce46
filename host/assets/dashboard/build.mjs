// Bundles the page into dist/: index.html, and a script and a style sheet that carry their content's hash in their names.
import { build } from "esbuild";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename } from "node:path";

await rm("dist", { recursive: true, force: true });
await mkdir("dist", { recursive: true });
const result = await build({
  entryPoints: { app: "src/main.jsx" },
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  outdir: "dist",
  entryNames: "[name]-[hash]",
  legalComments: "none",
  metafile: true,
  logLevel: "warning",
});
const built = Object.keys(result.metafile.outputs).map((file) => basename(file));
const named = (ending) => built.find((file) => file.endsWith(ending));
const page = await readFile("index.html", "utf8");
await writeFile("dist/index.html", page.replace("{{script}}", named(".js")).replace("{{style}}", named(".css")));
