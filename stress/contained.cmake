# contained: tests in a system of their own. Its programs are not built with a sanitizer.
if(NOT GRANARY_SANITIZE)
  add_test(NAME contained COMMAND ${stress_here}/contained ${CMAKE_BINARY_DIR})
  set_tests_properties(contained PROPERTIES LABELS limits TIMEOUT 240 SKIP_RETURN_CODE 77)
endif()
