# stress/soak itself, for seconds: it runs programs of this build, is over, and goes on where it was.

if(NOT GRANARY_SANITIZE AND NOT GRANARY_DEBUG)
  set(soak "${stress_here}/soak --slice 1 --state ${CMAKE_CURRENT_BINARY_DIR}/soak --tree release=${CMAKE_BINARY_DIR}")
  add_test(NAME soak_script COMMAND sh -c "rm -rf ${CMAKE_CURRENT_BINARY_DIR}/soak && ${soak} --for 1s &&
    ${soak} --for 3s | grep -cE 'going on after .*, 1 runs|^[1-9][0-9]* passed, 0 failed' | grep -x 2")
  set_tests_properties(soak_script PROPERTIES LABELS script TIMEOUT 240)
endif()
