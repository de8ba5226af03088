// Makes calls with grpc-js, each to every target, and writes what came of them.
//
// Reads from the standard input {protos, targets, calls}: the folder of the protos, addresses, and
// calls as tests/foreign_call.py describes them. Writes a list of outcomes for each target. Requests
// and replies pass through the messages that proto-loader makes of the protos.
"use strict";

const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");
const fs = require("node:fs");

const FILES = ["generation", "encoding", "model"].map((name) => `seqserve/v1/${name}.proto`);

function methodsOf(protos) {
  const definition = protoLoader.loadSync(FILES, { includeDirs: [protos], longs: String });
  const services = Object.values(definition).filter((one) => !one.format);
  const methods = services.flatMap((service) => Object.values(service));
  return Object.fromEntries(methods.map((method) => [method.path, method]));
}

function metadataOf(call) {
  const metadata = new grpc.Metadata();
  for (const [key, value] of Object.entries(call.metadata)) metadata.set(key, value);
  return metadata;
}

// grpc-js has a function for each shape of a call.
function start(client, method, requests, metadata, options, done) {
  const rest = [method.path, method.requestSerialize, method.responseDeserialize];
  if (method.requestStream) {
    const stream = client.makeBidiStreamRequest(...rest, metadata, options);
    for (const request of requests) stream.write(request);
    return stream;
  }
  if (method.responseStream) {
    return client.makeServerStreamRequest(...rest, requests[0], metadata, options);
  }
  return client.makeUnaryRequest(...rest, requests[0], metadata, options, done);
}

function make(client, method, call) {
  return new Promise((resolve) => {
    const replies = [];
    const options = { deadline: Date.now() + call.timeoutSeconds * 1000 };
    const requests = call.requests.map((one) =>
      method.requestDeserialize(Buffer.from(one, "base64")),
    );
    const keep = (reply) => replies.push(method.responseSerialize(reply).toString("base64"));
    const made = start(client, method, requests, metadataOf(call), options, (error, reply) => {
      if (!error) keep(reply);
    });
    if (method.responseStream) {
      made.on("data", (reply) => {
        keep(reply);
        if (call.isCancelled) made.cancel();
      });
      made.on("error", () => {}); // the status tells
    }
    if (method.requestStream && !call.isCancelled) made.end();
    made.on("status", (status) => {
      const trailers = {};
      for (const key of ["x-request-id", "grpc-retry-pushback-ms", "grpc-status-details-bin"]) {
        const [value] = status.metadata.get(key);
        if (value !== undefined) trailers[key] = Buffer.from(value).toString("base64");
      }
      // A unary reply is handed over after the status.
      setImmediate(() =>
        resolve({ code: status.code, message: status.details, replies, trailers }),
      );
    });
  });
}

async function main() {
  const { protos, targets, calls } = JSON.parse(fs.readFileSync(0, "utf-8"));
  const methods = methodsOf(protos);
  const outcomes = [];
  for (const target of targets) {
    const client = new grpc.Client(target, grpc.credentials.createInsecure());
    const found = [];
    for (const call of calls) found.push(await make(client, methods[call.path], call));
    outcomes.push(found);
    client.close();
  }
  process.stdout.write(JSON.stringify(outcomes));
}

main();
