// What TensorFlow.js computes with a layers model. It loads the model as a browser would, shard by shard.
//
//   node run.js FOLDER < inputs.json > outputs.json
//
// inputs.json and outputs.json are lists of {"dtype": "float32", "shape": [2, 3], "values": [...]}, in the model's order.

'use strict';

const fs = require('fs');
const path = require('path');

console.log = console.warn = console.info = () => {};  // the greeting of TensorFlow.js; stdout is the answer's
const tf = require('@tensorflow/tfjs');

function stored(folder) {
  const document = JSON.parse(fs.readFileSync(path.join(folder, 'model.json'), 'utf8'));
  const weights = (manifest) => {
    const shards = manifest.flatMap((group) => group.paths).map((name) => fs.readFileSync(path.join(folder, name)));
    const data = new Uint8Array(Buffer.concat(shards)).buffer;
    return [tf.io.getWeightSpecs(manifest), data];
  };
  return {load: () => tf.io.getModelArtifactsForJSON(document, async (manifest) => weights(manifest))};
}

async function main(folder) {
  await tf.setBackend('cpu');
  const model = await tf.loadLayersModel(stored(folder));
  const given = JSON.parse(fs.readFileSync(0, 'utf8'));
  const inputs = given.map(({values, shape, dtype}) => tf.tensor(values, shape, dtype));
  const answer = model.predict(inputs.length === 1 ? inputs[0] : inputs);
  const outputs = Array.isArray(answer) ? answer : [answer];
  const said = outputs.map((output) => ({
    dtype: output.dtype,
    shape: output.shape,
    values: Array.from(output.dataSync()),
  }));
  process.stdout.write(JSON.stringify(said));
}

main(process.argv[2]).catch((error) => {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
});
