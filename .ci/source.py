"""source.py -- what the checkers share: where the tree is, its files, C text without comments or strings."""
import os
import re
import sys

sys.dont_write_bytecode = True

# The tree to check: the first argument, or the one that this file stands in.
ROOT = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)


def _blank(text):
    """The same number of characters and lines, all white."""
    return re.sub(r'[^\n]', ' ', text)


def code(text):
    """C text with comments, strings and characters blanked; #include "..." keeps its name."""
    def keep(match):
        word = match.group(0)
        start = text.rfind('\n', 0, match.start()) + 1
        if word[0] == '"' and re.match(r'\s*#\s*include\s*$', text[start:match.start()]):
            return word
        return _blank(word)
    return _TOKEN.sub(keep, text)


def comments(text):
    """The other half: comments alone, everything else blanked."""
    out, last = [], 0
    for match in _TOKEN.finditer(text):
        out.append(_blank(text[last:match.start()]))
        out.append(match.group(0) if match.group(0)[0] == '/' else _blank(match.group(0)))
        last = match.end()
    return ''.join(out) + _blank(text[last:])


def files(*folders, ends=('.c', '.h', '.cc', '.hh', '.cpp')):
    """Paths relative to ROOT of the files below the folders, in order; build trees and .git are not looked into."""
    found = []
    for folder in folders:
        for here, dirs, names in os.walk(os.path.join(ROOT, folder)):
            dirs[:] = sorted(d for d in dirs if d not in ('.git', '__pycache__') and not d.startswith('build'))
            found += [os.path.relpath(os.path.join(here, n), ROOT) for n in sorted(names) if n.endswith(ends)]
    return found


def read(path):
    with open(os.path.join(ROOT, path), encoding='utf-8', errors='replace') as f:
        return f.read()


def line_of(text, offset):
    return text.count('\n', 0, offset) + 1


def function_heads(text):
    """(offset, name) of each function that C text without comments defines."""
    return [(m.start(), m.group(1)) for m in re.finditer(r'^\w[^;{}\n#]*?\b(\w+)\([^;{}]*\)\s*\{', text, re.M)]


class Report:
    """Collects what is wrong, prints it with its place, and says how much was looked at."""

    def __init__(self, name):
        self.name, self.wrong, self.seen = name, 0, 0

    def fail(self, place, why):
        self.wrong += 1
        print(f'{place}: {why}')

    def done(self, what):
        """An empty tree is no proof: a checker that saw nothing fails."""
        if self.seen == 0:
            self.fail(self.name, f'found no {what} to check')
        print(f'{self.name}: {self.seen} {what} checked, {self.wrong} wrong')
        sys.exit(1 if self.wrong else 0)
