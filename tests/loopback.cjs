// Preloaded (node --require) into servers that cannot be told an address: they listen on loopback alone.
const net = require("node:net");
const listen = net.Server.prototype.listen;

net.Server.prototype.listen = function (first, ...rest) {
  if (first !== null && typeof first === "object") {
    return listen.call(this, { ...first, host: "127.0.0.1" }, ...rest);
  }
  return listen.call(this, { port: first, host: "127.0.0.1" }, rest.find((value) => typeof value === "function"));
};
