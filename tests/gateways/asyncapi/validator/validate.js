// Reads an AsyncAPI document from standard input and prints {"errors": [...], "channels": [...]} by AsyncAPI's own parser.
import { readFileSync } from "node:fs";
import parser from "@asyncapi/parser";

const { document, diagnostics } = await new parser.Parser().parse(readFileSync(0, "utf8"));
const errors = diagnostics
  .filter((found) => found.severity === 0)
  .map((found) => `${found.path.join("/")}: ${found.message}`);
const channels = document ? document.channels().all().map((channel) => channel.address()) : [];
process.stdout.write(JSON.stringify({ errors, channels }));
