# Installs a built tree to a prefix of its own, then configures, builds and runs the outside project against it:
#   cmake -DBUILD=<build tree> -DFLAGS=<its CMAKE_CXX_FLAGS> -DTORCH_DIR=<LibTorch's CMake folder> \
#         -DWORK=<scratch folder> -P run_test.cmake
file(REMOVE_RECURSE ${WORK}/prefix ${WORK}/build/CMakeCache.txt ${WORK}/training/CMakeCache.txt)
execute_process(COMMAND ${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix COMMAND_ERROR_IS_FATAL ANY)

# The component needs LibTorch alone, so nothing else may be looked for.
execute_process(
  COMMAND ${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR} -B ${WORK}/build -G Ninja -DCMAKE_PREFIX_PATH=${WORK}/prefix
          -DTorch_DIR=${TORCH_DIR} -DCMAKE_CXX_FLAGS=${FLAGS} -DCMAKE_BUILD_TYPE=Release
          -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON -DCMAKE_DISABLE_FIND_PACKAGE_CLI11=ON
          -DCMAKE_DISABLE_FIND_PACKAGE_PCRE2=ON COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${WORK}/build COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${WORK}/build/two_layers COMMAND_ERROR_IS_FATAL ANY)

# The engine: a project that trains a model of its own.
execute_process(
  COMMAND ${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR}/training -B ${WORK}/training -G Ninja
          -DCMAKE_PREFIX_PATH=${WORK}/prefix -DTorch_DIR=${TORCH_DIR} -DCMAKE_CXX_FLAGS=${FLAGS} -DCMAKE_BUILD_TYPE=Release
          -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON -DCMAKE_DISABLE_FIND_PACKAGE_CLI11=ON COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${WORK}/training COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${WORK}/training/train_two_layers COMMAND_ERROR_IS_FATAL ANY)
