# fuzz_*.c: an executable each, whose test replays the committed corpus and draws inputs for some seconds (stress/fuzz.h).
#
# In a build with fuzzer-no-link among its sanitizers (the preset `fuzz`) the executable is libFuzzer's, and its test searches for
# some seconds from that corpus; what it finds new is kept beside the build, for the next run.

file(GLOB sources CONFIGURE_DEPENDS ${stress_here}/fuzz_*.c)
set(stress_fuzzers)
foreach(source IN LISTS sources)
  get_filename_component(name ${source} NAME_WE)
  stress_directives(lines ${source})
  stress_value(link "${lines}" link granary_api)
  stress_executable(${name} ${source} "${lines}")
  target_link_libraries(${name} PRIVATE granary_flags ${link})
  list(APPEND stress_fuzzers ${name})
  if(GRANARY_SANITIZE MATCHES fuzzer)
    target_compile_definitions(${name} PRIVATE STRESS_LIBFUZZER)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    set(found ${CMAKE_CURRENT_BINARY_DIR}/corpus/${name})
    file(MAKE_DIRECTORY ${found})
    add_test(NAME ${name} COMMAND ${name} -max_total_time=12 -timeout=30 -max_len=4096 -artifact_prefix=${found}-
      -print_final_stats=1 ${found} ${stress_here}/corpus/${name})
    set_tests_properties(${name} PROPERTIES TIMEOUT 300 LABELS fuzz ENVIRONMENT "${stress_sanitizer_env}")
  else()
    stress_register(${name} ${name} fuzz "${lines}" "")
  endif()
endforeach()
add_custom_target(fuzzers DEPENDS ${stress_fuzzers})
