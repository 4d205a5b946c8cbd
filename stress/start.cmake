# What the start_ family needs beside its executables: shims and libraries to load, and one program linked in every way.
# Each source of a library is also its test: compiled with STRESS_SHIM it is what the test preloads or loads.
#
# covers: S88

if(NOT GRANARY_SANITIZE)
  foreach(name start_recurse start_tls)
    add_library(${name}_shim MODULE ${stress_here}/${name}.c)
    target_compile_definitions(${name}_shim PRIVATE STRESS_SHIM _GNU_SOURCE)
    target_compile_options(${name}_shim PRIVATE -std=c11 -fno-builtin -Wall -Wextra)
    target_link_libraries(${name}_shim PRIVATE dl)
    add_dependencies(${name} ${name}_shim ${granary})
  endforeach()

  # override_whole.c without the library (it is preloaded under odd conditions), and with it in the executable itself.
  function(start_program name)
    add_executable(${name} ${stress_here}/override_whole.c)
    target_include_directories(${name} PRIVATE ${stress_here} ${stress_here}/../include)
    target_compile_definitions(${name} PRIVATE _GNU_SOURCE)
    target_compile_options(${name} PRIVATE -std=c11 -fno-builtin)
    target_include_directories(${name} PRIVATE ${CMOCKA_INCLUDE_DIRS})
    target_link_libraries(${name} PRIVATE Threads::Threads ${ARGN})
  endfunction()
  start_program(start_plain)
  add_dependencies(start_environment start_plain ${granary})

  # Statically linked: every malloc of libc itself is ours too, and there is no loader to help.
  start_program(start_static ${granary}_object -static)
  start_program(start_static_pie ${granary}_object -static-pie)
  start_program(start_object ${granary}_object)
  foreach(name start_static start_static_pie start_object)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES TIMEOUT 120 LABELS start)
  endforeach()
endif()
