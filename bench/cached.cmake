# The demo: a multithreaded cache server and its load generator. bench/demo builds and runs them.
#   cached         the server, on granary by default
#   cached-glibc   the same object files without the library; other allocators are preloaded into it
#   cachedload     the load generator, which verifies what it reads back
#   cached-check   the protocol's tests

find_package(Threads REQUIRED)

add_library(cached_flags INTERFACE)
target_compile_definitions(cached_flags INTERFACE _GNU_SOURCE)
target_compile_options(cached_flags INTERFACE -std=c11 -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes
  -Wmissing-prototypes -Wconversion -Wundef)
target_link_libraries(cached_flags INTERFACE Threads::Threads ${CMAKE_DL_LIBS})
if(TARGET granary_sanitize)
  target_link_libraries(cached_flags INTERFACE granary_sanitize)
endif()

add_library(cached_objects OBJECT ${CMAKE_CURRENT_LIST_DIR}/cached.c)
foreach(part command connection item output report session store worker)
  target_sources(cached_objects PRIVATE ${CMAKE_CURRENT_LIST_DIR}/cached_${part}.c)
endforeach()
target_link_libraries(cached_objects PRIVATE cached_flags)

add_executable(cached-glibc $<TARGET_OBJECTS:cached_objects>)
target_link_libraries(cached-glibc PRIVATE cached_flags)

add_executable(cached $<TARGET_OBJECTS:cached_objects>)
target_link_libraries(cached PRIVATE cached_flags)
# A sanitizer brings a malloc of its own.
if(TARGET granary AND NOT GRANARY_SANITIZE)
  target_link_libraries(cached PRIVATE granary)
endif()

add_executable(cachedload ${CMAKE_CURRENT_LIST_DIR}/cachedload.c ${CMAKE_CURRENT_LIST_DIR}/cached_client.c
  ${CMAKE_CURRENT_LIST_DIR}/cached_load.c ${CMAKE_CURRENT_LIST_DIR}/cached_histogram.c ${CMAKE_CURRENT_LIST_DIR}/cached_replies.c)
target_link_libraries(cachedload PRIVATE cached_flags m)

add_executable(cached-check ${CMAKE_CURRENT_LIST_DIR}/cached_check.c)
target_link_libraries(cached-check PRIVATE cached_flags)
if(TARGET granary AND NOT GRANARY_SANITIZE)
  add_test(NAME demo_killed COMMAND ${CMAKE_CURRENT_LIST_DIR}/../stress/kill_storm $<TARGET_FILE:cached> $<TARGET_FILE:cachedload>)
  set_tests_properties(demo_killed PROPERTIES TIMEOUT 120)
endif()
foreach(server cached cached-glibc)
  add_test(NAME demo_${server} COMMAND cached-check $<TARGET_FILE:${server}> $<TARGET_FILE:cachedload>)
  set_tests_properties(demo_${server} PROPERTIES TIMEOUT 60)
endforeach()
