// The behaviours that tests/contracts/executor.py names, in JavaScript.

import { existsSync, writeFileSync } from 'node:fs';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';

let calls = 0;

export const echo = async (event) => event;

export const nothing = async () => {};

export const raises = async () => {
  throw new RangeError('no');
};

export const picky = async (event) => {
  if (event.poison) throw new RangeError('no');
  return event;
};

export const leaves = async (event) => {
  if (event.status === undefined) return event;
  if (event.status < 0) {
    process.kill(process.pid, -event.status);
    await sleep(60_000);
  }
  process.exit(event.status);
};

export const sleeps = async (event) => {
  await sleep(event.seconds * 1000);
  return event;
};

export const large = async (event) => 'x'.repeat(event.bytes - 2);

export const meets = async (event) => {
  writeFileSync(event.mine, '');
  while (!existsSync(event.theirs)) await sleep(10);
  return event;
};

export const counts = async (event) => {
  calls += 1;
  await sleep((event.seconds ?? 0) * 1000);
  return calls;
};
