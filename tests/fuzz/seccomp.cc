// A seccomp profile, compiled, and the filter asked about every system call number that it may know.
#include "runtime/seccomp.h"

#include <linux/audit.h>

#include "fuzz/finding.h"
#include "fuzz/json_mutator.h"
#include "runtime/bpf_ranges.h"

using namespace kelp;

KELP_FUZZ_JSON

namespace {

constexpr std::uint32_t kArchitectures[] = {AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)fuzz::accepted([&] {
    const runtime::SeccompProgram program = runtime::compile_seccomp(spec::parse_seccomp(text));
    runtime::BpfInput input;
    for (const std::uint32_t arch : kArchitectures) {
      input.arch = arch;
      for (input.nr = 0; input.nr < 512 && !program.empty(); ++input.nr) (void)runtime::run_bpf(program.bpf, input);
    }
  });
  return 0;
}
