"""node: worker threads, JSON, big and transferred buffers, zlib and crypto in the thread pool, child processes."""
PACKAGES = ("nodejs",)
NEEDS = ("node",)
PROVEN = ("node",)

SCRIPT = r"""
'use strict';
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const crypto = require('crypto'), zlib = require('zlib'), { promisify } = require('util');
const { execFileSync } = require('child_process'), http = require('http'), fs = require('fs'), path = require('path');
const digest = (data) => crypto.createHash('sha256').update(data).digest('hex').slice(0, 16);
const document = (seed, n) => ({ seed, items: Array.from({ length: n }, (_, i) => ({
    key: `k${(seed * 31 + i) % 997}`, value: 'v'.repeat((seed + i) % 60), deep: [i, i / 3, null, { list: Array(i % 9).fill(i) }] })) });

if (!isMainThread) {
    let text = '';
    for (let i = 0; i < 12; i++) text = JSON.stringify(JSON.parse(JSON.stringify(document(workerData + i, 800))));
    const buffers = [];
    for (let i = 0; i < 200; i++) { const b = Buffer.alloc(1000 + i * 997); b.fill(i & 255); buffers.push(b); }
    const all = Buffer.concat(buffers);
    const shared = new Uint8Array(all.length); shared.set(all);
    parentPort.postMessage({ n: workerData, text: digest(text), sum: digest(all), buffer: shared.buffer }, [shared.buffer]);
    return;
}
const worker = (n) => new Promise((resolve, reject) => {
    const w = new Worker(__filename, { workerData: n });
    let answer;
    w.on('message', (m) => { answer = `worker ${m.n} ${m.text} ${m.sum} ${digest(Buffer.from(m.buffer))}`; });
    w.on('error', reject);
    w.on('exit', (code) => resolve(`${answer} ${code}`));
});
async function main() {
    for (let round = 0; round < 2; round++)
        for (const line of await Promise.all([1, 2, 3, 4].map((n) => worker(n + round * 4)))) console.log(line);

    const texts = Array.from({ length: 16 }, (_, n) => Buffer.from(JSON.stringify(document(n, 600))));
    const packed = await Promise.all(texts.map((t) => promisify(zlib.deflate)(t)));
    const opened = await Promise.all(packed.map((p) => promisify(zlib.inflate)(p)));
    const small = await Promise.all(texts.slice(0, 4).map((t) => promisify(zlib.brotliCompress)(t, { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 5 } })));
    console.log('zlib', opened.every((o, i) => o.equals(texts[i])), small.every((s, i) => zlib.brotliDecompressSync(s).equals(texts[i])));
    const keys = await Promise.all([1, 2, 3, 4].map((n) => promisify(crypto.scrypt)(`word${n}`, 'salt', 32, { N: 4096 })));
    console.log('scrypt', keys.map((k) => k.toString('hex').slice(0, 8)).join(' '));
    const { publicKey, privateKey } = await promisify(crypto.generateKeyPair)('rsa', { modulusLength: 1024 });
    console.log('rsa', crypto.verify('sha256', texts[0], publicKey, crypto.sign('sha256', texts[0], privateKey)));

    const big = Buffer.alloc(64 << 20, 7); big[big.length - 1] = 9;
    console.log('big', digest(Buffer.from(big)), digest(big.subarray(1 << 20, 2 << 20)));
    const many = []; for (let i = 0; i < 30000; i++) { many.push(Buffer.allocUnsafeSlow(i % 3000 + 1).fill(i & 255)); if (i % 3) many.pop(); }
    console.log('many', many.length, digest(Buffer.concat(many)));
    await Promise.all(texts.map((t, n) => fs.promises.writeFile(path.join(process.env.TMPDIR, `f${n}`), t)));
    const files = await Promise.all(texts.map((_, n) => fs.promises.readFile(path.join(process.env.TMPDIR, `f${n}`))));
    console.log('files', files.every((f, n) => f.equals(texts[n])));

    const server = http.createServer((q, r) => { let n = 0; q.on('data', (d) => { n += d.length; }); q.on('end', () => r.end(`${n} ${'x'.repeat(n % 5000)}`)); });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    const ask = (n) => new Promise((resolve, reject) => {
        const q = http.request({ host: '127.0.0.1', port: server.address().port, method: 'POST', agent: false }, (r) => {
            const parts = []; r.on('data', (d) => parts.push(d)); r.on('end', () => resolve(Buffer.concat(parts).length)); });
        q.on('error', reject); q.end(Buffer.alloc(n * 300, 1)); });
    const answers = []; for (let i = 0; i < 10; i++) answers.push(...await Promise.all(Array.from({ length: 30 }, (_, n) => ask(n + i))));
    server.close();
    console.log('http', answers.length, answers.reduce((a, b) => a + b));
    for (let i = 0; i < 3; i++)
        console.log('child', execFileSync(process.execPath, ['-e', `console.log(JSON.stringify(Array(${i}000).fill(1)).length)`]).toString().trim());
    const map = new Map(); for (let i = 0; i < 200000; i++) map.set(`key${i * 7919 % 100003}`, `value${i}`);
    console.log('map', map.size, digest([...map.entries()].slice(0, 1000).join()), JSON.stringify([...map]).length);
}
main();
"""


def work(run):
    return run.call("node", run.write("script.js", SCRIPT))
