# The races once more with noise between the library's steps (see STORM_NOISE in stress/storm.h), in every build that can
# follow them: with ThreadSanitizer this is where a weakened order shows, without it a lost update.

if(NOT GRANARY_SANITIZE STREQUAL "address")
  set(races race_user_data race_exit race_remote_free race_large race_trim race_reclaim soak_whole)
  if(GRANARY_HARDENED)
    list(REMOVE_ITEM races race_user_data)
  endif()
  foreach(name IN LISTS races)
    set(target ${name}_noise)
    add_executable(${target} ${stress_here}/${name}.c)
    target_include_directories(${target} PRIVATE ${stress_here} ${stress_here}/../include ${CMOCKA_INCLUDE_DIRS})
    target_compile_definitions(${target} PRIVATE STORM_NOISE)
    target_link_libraries(${target} PRIVATE ${granary}_points ${granary}_flags_only)
    add_test(NAME ${name}.noise COMMAND ${target} --seconds 2)
    set_tests_properties(${name}.noise PROPERTIES TIMEOUT 240 LABELS race ENVIRONMENT "${stress_sanitizer_env}")
  endforeach()
endif()
