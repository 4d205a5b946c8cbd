"""nginx: two workers serve files of 100 B to 3 MB plain, gzipped, with includes and by proxy under wrk; a
reload between."""
import gzip
import hashlib
import http.client
import os
import re
import signal
import time

PACKAGES = ("nginx-light", "wrk")
NEEDS = ("nginx", "wrk")
PROVEN = ("nginx", "wrk")
MEASURED = ("nginx",)

CONFIG = """
daemon off;
worker_processes 2;
pid {dir}/nginx.pid;
error_log stderr warn;
{user}
events {{ worker_connections 512; }}
http {{
    access_log off;
    types {{ text/plain txt; text/html html; }}
    default_type application/octet-stream;
    keepalive_requests 100000;
    client_body_temp_path {dir}/tmp/body; proxy_temp_path {dir}/tmp/proxy;
    fastcgi_temp_path {dir}/tmp/fastcgi;
    uwsgi_temp_path {dir}/tmp/uwsgi; scgi_temp_path {dir}/tmp/scgi;
    upstream self {{ server 127.0.0.1:{port}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        root {dir}/files;
        location / {{ sendfile on; open_file_cache max=100; }}
        location /packed/ {{
            alias {dir}/files/;
            gzip on; gzip_types *; gzip_min_length 100; gzip_comp_level 2;
        }}
        location /copied/ {{ alias {dir}/files/; sendfile off; output_buffers 2 64k; }}
        location /included/ {{ alias {dir}/files/; ssi on; ssi_types *; }}
        location /listed/ {{ alias {dir}/files/; autoindex on; autoindex_format json; }}
        location /proxied/ {{
            proxy_pass http://self/; proxy_http_version 1.1; proxy_buffers 4 8k;
            proxy_set_header Connection "";
        }}
    }}
}}
"""
PAGE = (
    """<!--# set var="x" value="y" --><p><!--# echo var="x" --></p><!--# include virtual="/f900.txt" -->"""
    * 5
)
GZIP = "-H 'Accept-Encoding: gzip'"
SIZES = (100, 900, 4000, 20000, 100000, 3000000)


def content(size):
    line = b"".join(b"%d some words of the file of %d bytes\n" % (i, size) for i in range(size // 30 + 1))
    return line[:size]


def serve(run):
    for size in SIZES:
        run.write(f"files/f{size}.txt", content(size))
    run.write("files/page.html", PAGE)
    user = run.user()
    if user:
        for folder in ("files", "tmp"):
            run.give(run.path(folder), user)

    def command(port):
        text = CONFIG.format(dir=run.dir, port=port, user=f"user {user.pw_name};" if user else "")
        run.write("nginx.conf", text)
        return f"nginx -p {run.dir} -c {run.path('nginx.conf')} -e stderr"

    return run.serve(command, lambda port: get(port, "/f100.txt") == content(100))


def get(port, path, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status not in (200, 206):
            return f"status {answer.status}".encode()
        return gzip.decompress(body) if answer.headers["Content-Encoding"] == "gzip" else body
    except (OSError, http.client.HTTPException) as error:
        return f"error {error}".encode()
    finally:
        connection.close()


def wrk(run, server, path, seconds, header=""):
    said = run.generate(
        f"wrk -t {1 if run.measuring else 2} -c 40 -d {seconds}s {header} http://127.0.0.1:{server.port}{path}"
    )
    run.want("Socket errors" not in said and "Non-2xx" not in said, f"wrk saw errors on {path}", said)
    requests, took = re.search(r"(\d+) requests in ([\d.]+)s", said).groups()
    run.want(int(requests) > 0, f"wrk got no answer from {path}", said)
    server.check_alive()
    return int(requests), float(took)


def check_all(run, server):
    lines = []
    for size in SIZES:
        for place in ("/", "/packed/", "/copied/", "/proxied/"):
            for headers in ({}, {"Accept-Encoding": "gzip"}):
                body = get(server.port, f"{place}f{size}.txt", headers)
                wrong = f"{place}f{size}.txt {headers} is wrong: {len(body)} bytes, {body[:60]!r}"
                run.want(body == content(size), wrong)
        part = get(server.port, f"/f{size}.txt", {"Range": "bytes=10-49,60-69"})
        run.want(content(size)[60:70] in part, f"a range of f{size}.txt is wrong")
    lines.append(hashlib.sha256(get(server.port, "/included/page.html")).hexdigest())
    lines.append(str(sorted(re.findall(rb'"name":"([^"]*)"', get(server.port, "/listed/")))))
    return "\n".join(lines)


def work(run):
    server = serve(run)
    workers = set(server.pids()) - {server.pid}
    said = [check_all(run, server)]
    for path in ("/packed/f20000.txt", "/proxied/f4000.txt", "/included/page.html"):
        wrk(run, server, path, 1, GZIP)
    server.check_maps()
    os.kill(server.pid, signal.SIGHUP)  # new workers take over, the old ones end
    until = time.monotonic() + 15
    while time.monotonic() < until and (workers & set(server.pids()) or len(server.pids()) < 3):
        time.sleep(0.05)
    run.want(not workers & set(server.pids()), "the old workers live on after a reload")
    server.check_maps()
    said.append(check_all(run, server))
    wrk(run, server, "/f4000.txt", 1)
    server.stop(signal.SIGQUIT)
    log = server.said()
    run.want(not re.search(r"exited on signal|exited with code [1-9]", log), "a worker died", log)
    return "\n".join(said)


def measure(run):
    server = serve(run)

    def rate(row, path, header=""):
        def generator():
            requests, took = wrk(run, server, path, 2, header)
            return requests / 1000, took

        return run.load(server, row, "k", True, generator)

    samples = [
        rate("nginx static", "/f900.txt"),
        rate("nginx gzip", "/packed/f20000.txt", GZIP),
        rate("nginx proxy", "/proxied/f4000.txt"),
    ]
    server.stop(signal.SIGQUIT)
    return samples
