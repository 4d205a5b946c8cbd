# model_*.cc: the shipped protocol files as C++ over Relacy's atomics (model/seam.h), each model a test and one for all mutants.
#
# They need g++, whose -fpermissive takes C's conversions, and relacy-dev. They speak of the protocols and not of a build: only the
# plain one has them. By hand: model_slab --help is in model/run.h; stress/model_mutants prints the table of mutants.

if(NOT GRANARY_SANITIZE AND NOT GRANARY_HARDENED AND NOT GRANARY_DEBUG)
  enable_language(CXX)
  find_path(stress_relacy relacy/relacy.hpp)
  if(stress_relacy AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    file(GLOB sources CONFIGURE_DEPENDS ${stress_here}/model_*.cc)
    set(stress_models)
    foreach(source IN LISTS sources)
      get_filename_component(name ${source} NAME_WE)
      add_executable(${name} ${source})
      # model/ comes first: its base/atomic.h and base/check.h stand in for those of src/.
      # src/ is a system's: what C++ permits there, and warns of, is none of ours.
      target_include_directories(${name} PRIVATE ${stress_here} ${stress_here}/model
        ${stress_here}/../include)
      target_include_directories(${name} SYSTEM PRIVATE ${stress_here}/../src)
      target_compile_definitions(${name} PRIVATE _GNU_SOURCE)
      target_compile_options(${name} PRIVATE -std=gnu++20 -O2 -fpermissive -Wall -Wextra
        -Wno-deprecated-enum-enum-conversion)
      add_test(NAME ${name} COMMAND ${name})
      set_tests_properties(${name} PROPERTIES LABELS model TIMEOUT 300)
      list(APPEND stress_models ${name})
    endforeach()
    add_test(NAME model_mutants COMMAND ${stress_here}/model_mutants ${CMAKE_CURRENT_BINARY_DIR})
    set_tests_properties(model_mutants PROPERTIES LABELS model TIMEOUT 600)
  else()
    message(STATUS "No models: they need g++ and relacy-dev")
  endif()
endif()
