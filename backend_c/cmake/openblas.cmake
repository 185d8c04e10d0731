# OpenBLAS as the Python wheel scipy_openblas32 carries it: header, library, symbols prefixed with scipy_.
# Sets EXACTMAP_BLAS_FOUND, and then the target exactmap_blas, which defines EM_HAVE_OPENBLAS.
set(EXACTMAP_BLAS_FOUND OFF)
if(NOT EXACTMAP_BLAS STREQUAL "OFF")
    find_package(Python COMPONENTS Interpreter REQUIRED)
    execute_process(
        COMMAND "${Python_EXECUTABLE}" -c
                "import scipy_openblas32 as b; print(b.get_include_dir(), b.get_lib_dir(), sep='\\n', end='')"
        RESULT_VARIABLE blas_result OUTPUT_VARIABLE blas_folders ERROR_QUIET)
    if(blas_result EQUAL 0)
        string(REPLACE "\n" ";" blas_folders "${blas_folders}")
        list(GET blas_folders 0 blas_include)
        list(GET blas_folders 1 blas_lib)
        # The build environment differs from one pip install to the next: never trust a cached path.
        unset(blas_library CACHE)
        find_library(blas_library scipy_openblas PATHS "${blas_lib}" NO_DEFAULT_PATH)
        if(blas_library AND EXISTS "${blas_include}/cblas.h")
            set(EXACTMAP_BLAS_FOUND ON)
            add_library(exactmap_blas INTERFACE)
            target_include_directories(exactmap_blas SYSTEM INTERFACE "${blas_include}")
            target_compile_definitions(exactmap_blas INTERFACE EM_HAVE_OPENBLAS=1)
            target_link_libraries(exactmap_blas INTERFACE "${blas_library}")
        endif()
    endif()
endif()
if(EXACTMAP_BLAS_FOUND)
    message(STATUS "Matrix products: OpenBLAS, ${blas_library}")
elseif(EXACTMAP_BLAS STREQUAL "ON")
    message(FATAL_ERROR "EXACTMAP_BLAS=ON, yet ${Python_EXECUTABLE} cannot import scipy_openblas32. "
                        "hint: pip install scipy-openblas32, or name its Python with -DPython_EXECUTABLE=")
else()
    message(STATUS "Matrix products: portable C")
endif()
