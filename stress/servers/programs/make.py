"""make: a generated tree of 50 sources built by make -j4 into a library and a program, and again after a
change."""
PACKAGES = ("make", "gcc", "libc6-dev")
NEEDS = ("make", "gcc", "ar")
PROVEN = ("make", "cc1", "as", "ld", "ar", "program")

MAKEFILE = r"""
SOURCES := $(wildcard src/*.c)
OBJECTS := $(SOURCES:src/%.c=out/%.o)
NAMES := $(foreach n,$(OBJECTS),$(notdir $(basename $n)))
all: program
	@echo built $(words $(OBJECTS)) $(firstword $(sort $(NAMES))) $(lastword $(sort $(NAMES)))
program: out/libparts.a main.c
	$(CC) -O1 -o $@ main.c out/libparts.a
out/libparts.a: $(OBJECTS)
	$(AR) rcD $@ $(sort $^)
out/%.o: src/%.c src/common.h | out
	$(CC) -O1 -c -o $@ $<
out:
	mkdir -p $@
define unused_rule
unused/$(1): $(2)
	echo $(1) $(2)
endef
$(foreach a,$(NAMES),$(foreach b,$(wordlist 1,20,$(NAMES)),$(eval $(call unused_rule,$(a)-$(b),$(b)))))
.PHONY: all
"""


def tree(run, count=50):
    run.write("Makefile", MAKEFILE)
    run.write(
        "src/common.h",
        "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
        "struct item { struct item *next; int value; };\n",
    )
    for i in range(count):
        run.write(
            f"src/part{i:02}.c",
            f"""#include "common.h"
int part{i}(int n) {{
    struct item *list = NULL;
    int sum = {i};
    for (int i = 0; i < n; i++) {{
        struct item *x = malloc(sizeof *x);
        x->next = list;
        x->value = i * {i + 1};
        list = x;
    }}
    while (list) {{
        struct item *x = list;
        list = x->next;
        sum += x->value % {i + 2};
        free(x);
    }}
    return sum;
}}
""",
        )
    run.write(
        "main.c",
        "#include <stdio.h>\n"
        + "".join(f"int part{i}(int n);\n" for i in range(count))
        + "int main(void) { long sum = 0;\n"
        + "".join(f"sum += part{i}(1000);\n" for i in range(count))
        + 'printf("sum %ld\\n", sum); return 0; }\n',
    )


def work(run):
    tree(run)
    said = [run.call("make", "-j4", "-s", "-O")]
    said.append(run.call(run.path("program")))
    run.write("src/part07.c", run.read("src/part07.c").replace(b"int sum = 7;", b"int sum = 70;"))
    rebuilt = run.call("make", "-j4", "-O", "--no-print-directory")
    said.append(
        "".join(sorted(line for line in rebuilt.splitlines(True) if " -c " in line or "built" in line))
    )
    said.append(run.call(run.path("program")))
    said.append(run.call("make", "-j4", "-q", "program", status=(0,)) + "up to date\n")
    said.append(run.call("cksum", "out/libparts.a").split()[0] + "\n")
    return "".join(said)
