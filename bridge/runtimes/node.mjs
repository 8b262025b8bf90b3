// The runtime client of Node.js handlers: fetches events from the Lambda Runtime API and calls the handler with them, as
// the client in AWS's own Node.js runtimes does. Standard library only, Node.js 18 or newer.
//
// Started as `node node.mjs`; everything else is said by environment variables (RT-20). With `--debug PORT` it waits for a
// debugger first.

import { existsSync, readFileSync, statSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import process from 'node:process';
import { Writable } from 'node:stream';
import { pathToFileURL } from 'node:url';
import util from 'node:util';

import { Connection, chunked, lastChunk } from './node_wire.mjs';

const LEVELS = ['TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL'];
const JSON_LOGS = process.env.AWS_LAMBDA_LOG_FORMAT === 'JSON';
const LEAST = JSON_LOGS ? LEVELS.indexOf((process.env.AWS_LAMBDA_LOG_LEVEL || 'INFO').toUpperCase()) : 0;

let requestId; // undefined until the first invocation: that is what stands in the log of init on Lambda, too
let whenIdle = null; // what to do when the event loop has nothing left to do
let errorPath = 'init/error'; // where an error is posted that nobody caught; null: nowhere, all is answered
let streaming = null; // the answer of which a part has been sent already, and which an error has to end

// An error with a type of the runtime's own (INV-25, INV-26).
class Fault extends Error {
  constructor(kind, reason) {
    super(String(reason));
    this.name = `Runtime.${kind}`;
  }
}

// The handler.

async function load(name) {
  const root = process.env.LAMBDA_TASK_ROOT || process.cwd();
  const [, folder, module, exported] = /^((?:.*\/)?)([^./][^.]*)\.(.+)$/.exec(name) ?? [];
  if (module === undefined || name.split('/').includes('..')) throw new Fault('MalformedHandlerName', 'Bad handler');
  const handler = exported
    .split('.')
    .reduce((found, key) => found?.[key], await loadModule(path.resolve(root, folder, module)));
  if (handler === undefined || handler === null) {
    throw new Fault('HandlerNotFound', `${name} is undefined or not exported`);
  }
  if (typeof handler !== 'function') throw new Fault('HandlerNotFound', `${name} is not a function`);
  return handler;
}

async function loadModule(file) {
  const require = createRequire(path.join(path.dirname(file), 'none.js'));
  const found = ['', '.js', '.mjs', '.cjs'].map((ending) => file + ending).find(isFile);
  try {
    return found !== undefined && isModule(found) ? await import(pathToFileURL(found).href) : require(found ?? file);
  } catch (error) {
    if (error instanceof SyntaxError) throw new Fault('UserCodeSyntaxError', error);
    if (['MODULE_NOT_FOUND', 'ERR_MODULE_NOT_FOUND'].includes(error?.code)) throw new Fault('ImportModuleError', error);
    throw error;
  }
}

function isFile(name) {
  return existsSync(name) && statSync(name).isFile();
}

// Whether it is an ECMAScript module: by its ending, else by the nearest package.json.
function isModule(file) {
  if (!file.endsWith('.js')) return file.endsWith('.mjs');
  for (let folder = path.dirname(file); ; folder = path.dirname(folder)) {
    const description = path.join(folder, 'package.json');
    if (isFile(description)) return JSON.parse(readFileSync(description, 'utf8')).type === 'module';
    if (folder === path.dirname(folder) || path.basename(folder) === 'node_modules') return false;
  }
}

// One invocation.

function invoke(handler, headers, event) {
  requestId = headers['lambda-runtime-aws-request-id'];
  const trace = headers['lambda-runtime-trace-id'];
  if (trace === undefined) delete process.env._X_AMZN_TRACE_ID;
  else process.env._X_AMZN_TRACE_ID = trace; // RT-9
  const call = new Call(requestId);
  errorPath = `invocation/${requestId}/error`;
  // The handler neither answered nor left anything that could do so later.
  whenIdle = () => call.respond(null);
  try {
    if (STREAMED.has(handler)) {
      stream(handler, JSON.parse(event), context(headers, call), call);
      return;
    }
    const result = handler(JSON.parse(event), context(headers, call), call.callback);
    if (typeof result?.then !== 'function') return;
    whenIdle = () => call.fail(new Fault('NodeJsExit', 'The event loop is empty, and the handler has not returned'));
    result.then(call.succeed, call.fail);
  } catch (error) {
    call.fail(error);
  }
}

function stream(handler, event, context, call) {
  const answer = new ResponseStream(call, STREAMED.get(handler));
  const result = handler(event, answer, context);
  if (typeof result?.then !== 'function') throw new Error('Streaming does not support non-async handlers.');
  whenIdle = () => call.fail(new Fault('NodeJsExit', 'The event loop is empty, and the response has not ended'));
  result.then((value) => {
    if (value !== undefined) console.warn('Streaming handlers ignore return values.');
    answer.returned();
  }, call.fail);
}

// The ways to end an invocation; the first one counts.
class Call {
  #over = false;
  #id;
  waits = true; // callbackWaitsForEmptyEventLoop

  constructor(id) {
    this.#id = id;
  }

  callback = (error, result) => {
    if (this.#over) return;
    if (error !== undefined && error !== null) this.fail(error);
    else if (this.waits) whenIdle = () => this.respond(result);
    else this.respond(result);
  };

  done = (error, result) => (error === undefined || error === null ? this.respond(result) : this.fail(error));

  succeed = (result) => this.respond(result);

  fail = (error) => {
    const reason = error ?? 'handled';
    if (this.#end()) {
      logError('Invoke Error', reason);
      answered(tell(`invocation/${this.#id}/error`, reason));
    }
  };

  respond(result) {
    let text;
    try {
      text = JSON.stringify(result === undefined ? null : result) ?? 'null';
    } catch {
      this.fail(new Error('Unable to stringify response body'));
      return;
    }
    if (this.#end()) answered(connection.send(connection.post(`invocation/${this.#id}/response`, text)));
  }

  get over() {
    return this.#over;
  }

  // What a streamed answer begins with, and what it ends with when all went well (RT-10).
  begin(contentType) {
    connection.write(connection.streamed(`invocation/${this.#id}/response`, contentType));
  }

  complete() {
    if (!this.#end()) return;
    streaming = null;
    answered(connection.send(lastChunk()));
  }

  #end() {
    if (this.#over) return false;
    whenIdle = errorPath = null;
    return (this.#over = true);
  }
}

// A streamed answer. It is sent as it is written, and complete when it was ended and the handler has returned.
class ResponseStream extends Writable {
  #call;
  #contentType = 'application/octet-stream';
  #prelude = null;
  #returned = false;

  constructor(call, options) {
    super(options);
    this.#call = call;
    this.on('finish', () => this.#settle());
  }

  setContentType(type) {
    if (streaming === this) throw new Error('Cannot set content-type, too late.');
    this.#contentType = String(type).replace(/[^\x20-\x7e]/g, '');
  }

  // The status and headers of an answer over HTTP, before its body.
  introduce(prelude) {
    this.setContentType('application/vnd.awslambda.http-integration-response');
    this.#prelude = Buffer.concat([Buffer.from(JSON.stringify(prelude)), Buffer.alloc(8)]);
  }

  write(chunk, ...more) {
    return super.write(writable(chunk), ...more);
  }

  end(chunk, ...more) {
    return super.end(writable(chunk), ...more);
  }

  _write(chunk, _encoding, done) {
    if (this.#call.over) return done(); // nobody listens any more
    this.#begin();
    connection.write(chunked(chunk), done);
  }

  _final(done) {
    if (!this.#call.over) this.#begin();
    done();
  }

  returned() {
    this.#returned = true;
    this.#settle();
  }

  #begin() {
    if (streaming === this) return;
    streaming = this;
    this.#call.begin(this.#contentType);
    if (this.#prelude) connection.write(chunked(this.#prelude));
  }

  #settle() {
    if (this.#returned && this.writableFinished) this.#call.complete();
  }
}

// Texts and bytes as they are, other values as JSON.
function writable(chunk) {
  const asIs = chunk === undefined || chunk === null || ['string', 'function'].includes(typeof chunk);
  return asIs || chunk instanceof Uint8Array ? chunk : JSON.stringify(chunk);
}

const STREAMED = new Map(); // the handlers that stream their answers -> options of their streams

function offerStreaming() {
  globalThis.awslambda = {
    streamifyResponse(handler, options) {
      STREAMED.set(handler, options?.highWaterMark === undefined ? {} : { highWaterMark: Number(options.highWaterMark) });
      return handler;
    },
    HttpResponseStream: {
      from(stream, prelude) {
        stream.introduce(prelude);
        return stream;
      },
    },
  };
}

function context(headers, call) {
  const deadline = Number(headers['lambda-runtime-deadline-ms']);
  const variables = process.env;
  return {
    get callbackWaitsForEmptyEventLoop() {
      return call.waits;
    },
    set callbackWaitsForEmptyEventLoop(value) {
      call.waits = Boolean(value);
    },
    functionVersion: variables.AWS_LAMBDA_FUNCTION_VERSION,
    functionName: variables.AWS_LAMBDA_FUNCTION_NAME,
    memoryLimitInMB: variables.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: variables.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: variables.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext: jsonHeader(headers, 'lambda-runtime-client-context'),
    identity: jsonHeader(headers, 'lambda-runtime-cognito-identity'),
    invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
    awsRequestId: headers['lambda-runtime-aws-request-id'],
    tenantId: headers['lambda-runtime-aws-tenant-id'],
    getRemainingTimeInMillis: () => Math.max(0, deadline - Date.now()),
    done: call.done,
    succeed: call.succeed,
    fail: call.fail,
  };
}

function jsonHeader(headers, name) {
  return headers[name] ? JSON.parse(headers[name]) : undefined;
}

// Errors.

// Posts an error; resolves with the reply. What has been streamed so far is ended by it (RT-10).
function tell(path, error) {
  const told = described(error);
  const text = JSON.stringify(told);
  if (!streaming) return connection.send(connection.post(path, text));
  streaming = null;
  const kind = told.errorType.replace(/[^\x21-\x7e]/g, '');
  return connection.send(
    lastChunk({
      'Lambda-Runtime-Function-Error-Type': kind,
      'Lambda-Runtime-Function-Error-Body': Buffer.from(text).toString('base64'),
    }),
  );
}

// The object to post (INV-21, INV-22).
function described(error) {
  try {
    if (!isError(error)) return { errorType: typeof error, errorMessage: String(error), trace: [] };
    return { errorType: error.name, errorMessage: error.message, trace: String(error.stack ?? '').split('\n') };
  } catch {
    return { errorType: 'handled', errorMessage: 'the error cannot be read: its name, message or stack fails', trace: [] };
  }
}

function isError(value) {
  return util.types.isNativeError(value) || value instanceof Error;
}

function logError(what, error) {
  if (JSON_LOGS) {
    write('ERROR', [error]);
    return;
  }
  const { errorType, errorMessage, trace } = described(error);
  const own = isError(error) ? plain({ ...error }) : {};
  write('ERROR', [`${what} \t${JSON.stringify({ errorType, errorMessage, ...own, stack: trace })}`]);
}

// What JSON can hold of an error's own members.
function plain(members) {
  try {
    delete members.name;
    return JSON.parse(JSON.stringify(members));
  } catch {
    return {};
  }
}

// Logs (RT-53, RT-54).

function write(level, values) {
  if (LEVELS.indexOf(level) < LEAST) return;
  const time = new Date().toISOString();
  const line = JSON_LOGS ? jsonLine(time, level, values) : `${time}\t${requestId}\t${level}\t${util.format(...values)}`;
  out(`${line}\n`);
}

function jsonLine(timestamp, level, values) {
  const line = { timestamp, level, requestId };
  const error = values.find(isError);
  line.message = values.length === 1 && !error ? values[0] : util.format(...values);
  if (error) {
    const { errorType, errorMessage, trace } = described(error);
    Object.assign(line, { errorType, errorMessage, stackTrace: trace });
  }
  try {
    return JSON.stringify(line);
  } catch {
    return JSON.stringify({ ...line, message: util.format(...values) });
  }
}

// Whole and at once: what a handler logs before it ends its process is not lost.
function out(text) {
  const bytes = Buffer.from(text);
  for (let sent = 0; sent < bytes.length; ) {
    try {
      sent += writeSync(1, bytes, sent);
    } catch (error) {
      if (error.code !== 'EAGAIN') return; // nobody reads any more
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

function patchConsole() {
  console.log = (...values) => write('INFO', values);
  for (const level of LEVELS) console[level.toLowerCase()] = (...values) => write(level, values);
  console.trace = (...values) => {
    const here = { name: 'Trace', message: util.format(...values) };
    Error.captureStackTrace(here, console.trace);
    write('TRACE', [here.stack]);
  };
}

// The invocation that ran has its answer, and in the same breath the next event is asked for.
function answered(reply) {
  reply.then(accepted);
  next();
}

function accepted({ headers, body }) {
  if (headers[':status'] !== '202' && headers[':status'] !== '413') {
    out(`the Runtime API refused an answer: ${body}\n`);
    process.exit(1);
  }
}

// The life of the process.

const connection = new Connection(process.env.AWS_LAMBDA_RUNTIME_API);
let handler;

function next() {
  connection.send(connection.get('invocation/next')).then(({ headers, body }) => {
    connection.rest();
    invoke(handler, headers, body);
  });
}

// What no handler caught: it is reported, and the process ends, as it may be in any state.
function fall(what, error, status) {
  logError(what, error);
  const path = errorPath;
  whenIdle = errorPath = null;
  const told = path ? tell(path, error) : connection.sent();
  told.then(() => process.exit(status));
}

const [option, port] = process.argv.splice(2); // nothing of it is for handlers
if (option === '--debug') (await import('node:inspector')).open(Number(port), '127.0.0.1', true);
patchConsole();
offerStreaming();
process.on('uncaughtException', (error) => fall('Uncaught Exception', error, 129));
process.on('unhandledRejection', (reason) => {
  const error = new Fault('UnhandledPromiseRejection', reason);
  if (isError(reason)) error.stack = `${error.name}: ${reason.stack}`;
  fall('Unhandled Promise Rejection', error, 128);
});
process.on('beforeExit', () => {
  const act = whenIdle;
  whenIdle = null;
  act?.();
});
try {
  handler = await load(process.env._HANDLER ?? '');
  next();
} catch (error) {
  fall('Uncaught Exception', error, 1);
}
