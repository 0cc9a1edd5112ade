// Values and clients as they are written in Python.

/** An expression that is written as it is, such as a call. */
export class Expression {
  constructor(code) {
    this.code = code;
  }
}

/** A value in Python. JSON's strings are Python's too. */
export function literal(value, indent = "") {
  if (value === null) return "None";
  if (value instanceof Expression) return value.code;
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const parts = Array.isArray(value)
    ? value.map((item) => literal(item, `${indent}    `))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${literal(item, `${indent}    `)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const line = `${open}${parts.join(", ")}${close}`;
  if (line.length + indent.length <= 88 && !line.includes("\n")) return line;
  return `${open}\n${parts.map((part) => `${indent}    ${part},\n`).join("")}${indent}${close}`;
}

/** The members of `values` as the arguments of a call, one a line. */
export function keywords(values) {
  const lines = Object.entries(values).map(([name, value]) => `    ${name}=${literal(value, "    ")},`);
  return `\n${lines.join("\n")}\n`;
}

/** The line that makes `client`; where a key is asked for it needs `os`. */
export function openaiClient(url, keyed) {
  const key = keyed ? 'os.environ["KILONOVA_API_KEY"]' : '"local"';
  return `client = OpenAI(base_url=${literal(`${url}/v1`)}, api_key=${key})`;
}

/** The lines that make `bedrock`. */
export function bedrockClient(url, keyed) {
  const credentials = keyed
    ? ["    # AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are read from the environment."]
    : ['    aws_access_key_id="local",', '    aws_secret_access_key="local",'];
  return [
    "bedrock = boto3.client(",
    '    "bedrock-runtime",',
    `    endpoint_url=${literal(url)},`,
    '    region_name="us-east-1",',
    ...credentials,
    ")",
  ];
}
