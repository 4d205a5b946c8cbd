"""cmake: configures a small C project, runs list and string work in its language, builds and tests it."""
PACKAGES = ("cmake", "make", "gcc", "libc6-dev")
NEEDS = ("cmake", "ctest", "make", "gcc")
PROVEN = ("cmake", "ctest", "make", "cc1")

LISTS = r"""
cmake_minimum_required(VERSION 3.13)
project(sample LANGUAGES C)
set(words "")
foreach(i RANGE 1 1500)
  math(EXPR n "(${i} * 7919) % 613")
  list(APPEND words "word${n}")
  string(APPEND text "item ${i} of ${n};")
endforeach()
list(REMOVE_DUPLICATES words)
list(SORT words)
list(LENGTH words count)
string(REGEX REPLACE "item ([0-9]+) of" "<\\1>" changed "${text}")
string(SHA256 hash "${changed} ${words}")
message(STATUS "answer ${count} ${hash}")
include(CheckIncludeFile)
check_include_file(stdlib.h HAVE_STDLIB_H)
enable_testing()
foreach(i RANGE 1 12)
  file(WRITE ${CMAKE_BINARY_DIR}/part${i}.c "int part${i}(void) { return ${i}; }\n")
  list(APPEND parts ${CMAKE_BINARY_DIR}/part${i}.c)
  add_test(NAME part${i} COMMAND program ${i})
endforeach()
add_library(parts STATIC ${parts})
file(WRITE ${CMAKE_BINARY_DIR}/main.c "#include <stdlib.h>
int part3(void);
int main(int count, char **words) { return count != 2 || atoi(words[1]) < part3() - 2; }
")
add_executable(program ${CMAKE_BINARY_DIR}/main.c)
target_link_libraries(program parts)
"""


def work(run):
    run.write("project/CMakeLists.txt", LISTS)
    configured = run.call("cmake", "-S", "project", "-B", "build", "-G", "Unix Makefiles")
    run.call("cmake", "--build", "build", "--parallel", "2")
    tested = run.call("ctest", "--test-dir", "build", "-j2")
    answer = [line for line in configured.splitlines() if "answer" in line]
    answer += [line for line in tested.splitlines() if "tests passed" in line]
    return "\n".join(answer)
