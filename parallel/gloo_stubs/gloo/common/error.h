// Stands in for gloo/common/error.h: ProcessGroupGloo.hpp includes it and uses nothing from it.
#pragma once
