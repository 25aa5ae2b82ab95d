#include "runtime/hooks.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "sys/lock.h"
#include "sys/spawn.h"

namespace kelp::runtime {
namespace {

constexpr size_t kMaxOutput = 64 * 1024;

/// A file without a name: unlike a pipe it can be written whole before anybody reads.
Fd memory_file(const char* name) {
  Fd fd(::memfd_create(name, MFD_CLOEXEC));
  if (!fd) throw_errno("make a memory file");
  return fd;
}

void run_hook(const spec::Hook& hook, const std::string& state, const std::string& cwd, const spec::Strings* env) {
  const Fd in = memory_file("state");
  sys::write_all(in.get(), state, "the hook's input");
  if (::lseek(in.get(), 0, SEEK_SET) < 0) throw_errno("rewind the hook's input");
  const Fd out = memory_file("output");

  sys::SpawnRequest request;
  request.path = hook.path;
  request.argv = hook.args.empty() ? std::vector<std::string>{hook.path} : hook.args;
  if (!hook.env.empty())
    request.env = hook.env;
  else if (env != nullptr)
    request.env = *env;
  request.fds = {{0, in.get()}, {1, out.get()}, {2, out.get()}};
  request.working_dir = cwd;
  sys::Child child = sys::spawn(request);
  const std::optional<int> status = child.wait_for(hook.timeout ? *hook.timeout * 1000 : -1);
  if (!status) throw_error("it ran longer than its timeout of {} s", *hook.timeout);
  if (*status == 0) return;

  (void)::lseek(out.get(), 0, SEEK_SET);
  std::string text(kMaxOutput, '\0');
  const ssize_t size = ::read(out.get(), text.data(), text.size());
  text.resize(size > 0 ? static_cast<size_t>(size) : 0);
  const std::string_view said = trim(text);
  throw_error("exit status {}{}{}", *status, said.empty() ? "" : ": ", said);
}

}  // namespace

void run_hooks(const char* kind, const std::vector<spec::Hook>& hooks, const std::string& state, const std::string& cwd,
               const spec::Strings* env) {
  for (size_t i = 0; i < hooks.size(); ++i) {
    try {
      log::debug("{} hook {}", kind, hooks[i].path);
      run_hook(hooks[i], state, cwd, env);
    } catch (Error& error) {
      error.add_context(fmt::format("{} hook #{} {}", kind, i, hooks[i].path));
      throw;
    }
  }
}

void run_hooks_warning(const char* kind, const std::vector<spec::Hook>& hooks, const std::string& state,
                       const std::string& cwd) noexcept {
  for (const spec::Hook& hook : hooks) {
    try {
      run_hooks(kind, {hook}, state, cwd);
    } catch (const std::exception& error) {
      log::warn("{}", error.what());
    }
  }
}

}  // namespace kelp::runtime
