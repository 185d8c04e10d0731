# What every C target shares: warnings, sanitizers, floating-point rules, run paths.
find_package(Threads REQUIRED)
find_library(EXACTMAP_MATH_LIBRARY m)

add_library(exactmap_options INTERFACE)
target_compile_options(
    exactmap_options INTERFACE
    -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wvla
    # Notes on the calling convention of wide vectors: ours are passed within a file only.
    -Wno-psabi
    $<$<BOOL:${EXACTMAP_WERROR}>:-Werror>
    # Same source, same bits: a multiply and an add are fused only where a kernel says so.
    -ffp-contract=off -fno-math-errno
    # Where there are tests, assertions hold in optimised code too.
    $<$<BOOL:${EXACTMAP_TESTS}>:-UNDEBUG>)
target_compile_definitions(
    exactmap_options INTERFACE
    _POSIX_C_SOURCE=200809L
    EM_VERSION_STRING="${PROJECT_VERSION}")
target_link_libraries(exactmap_options INTERFACE Threads::Threads)
if(EXACTMAP_MATH_LIBRARY)
    target_link_libraries(exactmap_options INTERFACE ${EXACTMAP_MATH_LIBRARY})
endif()
if(EXACTMAP_BLAS_FOUND)
    target_link_libraries(exactmap_options INTERFACE exactmap_blas)
endif()

if(EXACTMAP_SANITIZE)
    string(REPLACE "," ";" sanitizers "${EXACTMAP_SANITIZE}")
    foreach(sanitizer IN LISTS sanitizers)
        if(NOT sanitizer MATCHES "^(address|thread|undefined)$")
            message(FATAL_ERROR "EXACTMAP_SANITIZE: got ${sanitizer}, expected address, thread or undefined")
        endif()
        target_compile_options(exactmap_options INTERFACE -fsanitize=${sanitizer})
        target_link_options(exactmap_options INTERFACE -fsanitize=${sanitizer})
    endforeach()
    target_compile_options(exactmap_options INTERFACE -g -fno-omit-frame-pointer -fno-sanitize-recover=all)
endif()
