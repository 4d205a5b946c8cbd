"""node: worker threads, JSON, big and transferred buffers, zlib and crypto in the thread pool, http, child
processes."""
PACKAGES = ("nodejs",)
NEEDS = ("node",)
PROVEN = ("node",)

SCRIPT = r"""
'use strict';
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const { execFileSync } = require('child_process');
const { promisify } = require('util');
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');
const path = require('path');
const zlib = require('zlib');

const range = (n) => Array.from({ length: n }, (_, i) => i);
const digest = (data) => crypto.createHash('sha256').update(data).digest('hex').slice(0, 16);
const document = (seed, n) => ({
    seed,
    items: range(n).map((i) => ({
        key: `k${(seed * 31 + i) % 997}`,
        value: 'v'.repeat((seed + i) % 60),
        deep: [i, i / 3, null, { list: Array(i % 9).fill(i) }],
    })),
});

function inWorker() {
    let text = '';
    for (let i = 0; i < 12; i++)
        text = JSON.stringify(JSON.parse(JSON.stringify(document(workerData + i, 800))));
    const all = Buffer.concat(range(200).map((i) => Buffer.alloc(1000 + i * 997, i & 255)));
    const moved = new Uint8Array(all.length);
    moved.set(all);
    const answer = { n: workerData, text: digest(text), sum: digest(all), buffer: moved.buffer };
    parentPort.postMessage(answer, [moved.buffer]);
}

function worker(n) {
    return new Promise((resolve, reject) => {
        const w = new Worker(__filename, { workerData: n });
        let answer;
        w.on('message', (m) => {
            answer = `worker ${m.n} ${m.text} ${m.sum} ${digest(Buffer.from(m.buffer))}`;
        });
        w.on('error', reject);
        w.on('exit', (code) => resolve(`${answer} ${code}`));
    });
}

async function threadPool(texts) {
    const packed = await Promise.all(texts.map((t) => promisify(zlib.deflate)(t)));
    const opened = await Promise.all(packed.map((p) => promisify(zlib.inflate)(p)));
    const quality = { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 5 } };
    const small = await Promise.all(texts.slice(0, 4).map((t) => promisify(zlib.brotliCompress)(t, quality)));
    console.log('zlib', opened.every((o, i) => o.equals(texts[i])),
        small.every((s, i) => zlib.brotliDecompressSync(s).equals(texts[i])));
    const scrypt = promisify(crypto.scrypt);
    const keys = await Promise.all(range(4).map((n) => scrypt(`word${n}`, 'salt', 32, { N: 4096 })));
    console.log('scrypt', keys.map((k) => k.toString('hex').slice(0, 8)).join(' '));
    const { publicKey, privateKey } = await promisify(crypto.generateKeyPair)('rsa', { modulusLength: 1024 });
    const signature = crypto.sign('sha256', texts[0], privateKey);
    console.log('rsa', crypto.verify('sha256', texts[0], publicKey, signature));
    const names = texts.map((_, n) => path.join(process.env.TMPDIR, `f${n}`));
    await Promise.all(texts.map((t, n) => fs.promises.writeFile(names[n], t)));
    const files = await Promise.all(names.map((name) => fs.promises.readFile(name)));
    console.log('files', files.every((f, n) => f.equals(texts[n])));
}

function buffers() {
    const big = Buffer.alloc(64 << 20, 7);
    big[big.length - 1] = 9;
    console.log('big', digest(Buffer.from(big)), digest(big.subarray(1 << 20, 2 << 20)));
    const many = [];
    for (let i = 0; i < 30000; i++) {
        many.push(Buffer.allocUnsafeSlow(i % 3000 + 1).fill(i & 255));
        if (i % 3) many.pop();
    }
    console.log('many', many.length, digest(Buffer.concat(many)));
}

async function overHttp() {
    const server = http.createServer((request, response) => {
        let n = 0;
        request.on('data', (d) => { n += d.length; });
        request.on('end', () => response.end(`${n} ${'x'.repeat(n % 5000)}`));
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    const port = server.address().port;
    const ask = (n) => new Promise((resolve, reject) => {
        const options = { host: '127.0.0.1', port, method: 'POST', agent: false };
        const request = http.request(options, (response) => {
            const parts = [];
            response.on('data', (d) => parts.push(d));
            response.on('end', () => resolve(Buffer.concat(parts).length));
        });
        request.on('error', reject);
        request.end(Buffer.alloc(n * 300, 1));
    });
    const answers = [];
    for (let i = 0; i < 10; i++)
        answers.push(...await Promise.all(range(30).map((n) => ask(n + i))));
    server.close();
    console.log('http', answers.length, answers.reduce((a, b) => a + b));
}

async function main() {
    for (let round = 0; round < 2; round++)
        for (const line of await Promise.all([1, 2, 3, 4].map((n) => worker(n + round * 4))))
            console.log(line);
    await threadPool(range(16).map((n) => Buffer.from(JSON.stringify(document(n, 600)))));
    buffers();
    await overHttp();
    for (let i = 0; i < 3; i++) {
        const code = `console.log(JSON.stringify(Array(${i}000).fill(1)).length)`;
        console.log('child', execFileSync(process.execPath, ['-e', code]).toString().trim());
    }
    const map = new Map();
    for (let i = 0; i < 200000; i++)
        map.set(`key${i * 7919 % 100003}`, `value${i}`);
    console.log('map', map.size, digest([...map.entries()].slice(0, 1000).join()));
    console.log('text', JSON.stringify([...map]).length);
}

if (isMainThread)
    main();
else
    inWorker();
"""


def work(run):
    return run.call("node", run.write("script.js", SCRIPT))
