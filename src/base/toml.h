#pragma once

/// toml++, for whoever reads a configuration file (its meson.build names the dependency). The library asserts what a
/// malformed file can break (a table's name that begins with "="), and with NDEBUG promises it to the optimizer. With
/// neither of the two it reports the error, as it should.
#pragma push_macro("NDEBUG")
#undef NDEBUG
#define TOML_HEADER_ONLY 1
#define TOML_ASSERT(expression) static_cast<void>(0)
#include <toml++/toml.h>
#pragma pop_macro("NDEBUG")
