// The wire of node.mjs: one connection to the Lambda Runtime API.

import net from 'node:net';
import process from 'node:process';

const API = '/2018-06-01/runtime/';
const AGENT = `bridge-nodejs/${process.versions.node}`;

// One connection, kept for good. When the other end is gone, so is what we are for: the process ends.
export class Connection {
  #socket;
  #host;
  #chunks = [];
  #size = 0;
  #wanted = 0; // bytes below which a reply cannot be complete
  #replies = []; // who gets the next replies, in order

  constructor(address) {
    const [, host, port] = /^(.*):(\d+)$/.exec(address);
    this.#host = address;
    this.#socket = net.connect({ host, port: Number(port), noDelay: true });
    this.#socket.on('data', (data) => this.#feed(data));
    this.#socket.on('error', orphaned);
    this.#socket.on('close', orphaned);
  }

  get(target) {
    return [`GET ${API}${target} HTTP/1.1\r\nHost: ${this.#host}\r\nUser-Agent: ${AGENT}\r\n\r\n`];
  }

  post(target, text) {
    const body = Buffer.from(text);
    const head =
      `POST ${API}${target} HTTP/1.1\r\nHost: ${this.#host}\r\nUser-Agent: ${AGENT}\r\n` +
      `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`;
    return [head, body];
  }

  // The beginning of a request whose body follows in chunks.
  streamed(target, contentType) {
    return [
      `POST ${API}${target} HTTP/1.1\r\nHost: ${this.#host}\r\nUser-Agent: ${AGENT}\r\n` +
        `Content-Type: ${contentType}\r\nTransfer-Encoding: chunked\r\n` +
        'Lambda-Runtime-Function-Response-Mode: streaming\r\n' +
        'Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n',
    ];
  }

  // Part of a request; `done` is called when it has left the process.
  write(parts, done) {
    this.#socket.cork();
    for (const part of parts) this.#socket.write(part);
    if (done) this.#socket.write('', () => done());
    this.#socket.uncork();
  }

  // Resolves with the reply.
  send(parts) {
    this.#socket.ref(); // the process lives while a reply is awaited
    this.write(parts);
    return new Promise((resolve) => this.#replies.push(resolve));
  }

  // Resolves when what was sent before has left the process.
  sent() {
    return new Promise((resolve) => this.#socket.write('', resolve));
  }

  // From now on only the handler's own doings keep the process alive.
  rest() {
    if (!this.#replies.length) this.#socket.unref();
  }

  #feed(data) {
    this.#chunks.push(data);
    this.#size += data.length;
    while (this.#size > 0 && this.#size >= this.#wanted) {
      const all = this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks);
      this.#chunks = [all];
      const end = all.indexOf('\r\n\r\n');
      if (end < 0) return;
      const headers = parsed(all.toString('latin1', 0, end));
      const whole = end + 4 + Number(headers['content-length'] ?? 0);
      this.#wanted = whole;
      if (all.length < whole) return;
      this.#wanted = 0;
      this.#chunks = [all.subarray(whole)];
      this.#size -= whole;
      this.#replies.shift()({ headers, body: all.toString('utf8', end + 4, whole) });
    }
  }
}

function parsed(head) {
  const [first, ...lines] = head.split('\r\n');
  const headers = { ':status': first.split(' ')[1] };
  for (const line of lines) {
    const colon = line.indexOf(':');
    headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
  }
  return headers;
}

function orphaned() {
  process.reallyExit(1); // at once: no handler of the function's own holds us
}

export function chunked(bytes) {
  return bytes.length ? [`${bytes.length.toString(16)}\r\n`, bytes, '\r\n'] : [];
}

// What ends a body in chunks.
export function lastChunk(trailers = {}) {
  const lines = Object.entries(trailers).map(([name, value]) => `${name}: ${value}\r\n`);
  return [`0\r\n${lines.join('')}\r\n`];
}
