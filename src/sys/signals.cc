#include "sys/signals.h"

#include <sys/signalfd.h>

#include <cerrno>

#include "base/error.h"
#include "base/text.h"

namespace kelp::sys {
namespace {

struct Named {
  const char* name;
  int number;
};
/// Aliases stand behind the name that signal_name() gives.
constexpr Named kNames[] = {
    {"HUP", SIGHUP},       {"INT", SIGINT},     {"QUIT", SIGQUIT}, {"ILL", SIGILL},   {"TRAP", SIGTRAP},
    {"ABRT", SIGABRT},     {"BUS", SIGBUS},     {"FPE", SIGFPE},   {"KILL", SIGKILL}, {"USR1", SIGUSR1},
    {"SEGV", SIGSEGV},     {"USR2", SIGUSR2},   {"PIPE", SIGPIPE}, {"ALRM", SIGALRM}, {"TERM", SIGTERM},
#ifdef SIGSTKFLT
    {"STKFLT", SIGSTKFLT},
#endif
    {"CHLD", SIGCHLD},     {"CONT", SIGCONT},   {"STOP", SIGSTOP}, {"TSTP", SIGTSTP}, {"TTIN", SIGTTIN},
    {"TTOU", SIGTTOU},     {"URG", SIGURG},     {"XCPU", SIGXCPU}, {"XFSZ", SIGXFSZ}, {"VTALRM", SIGVTALRM},
    {"PROF", SIGPROF},     {"WINCH", SIGWINCH}, {"IO", SIGIO},     {"PWR", SIGPWR},   {"SYS", SIGSYS},
    {"IOT", SIGIOT},       {"CLD", SIGCHLD},    {"POLL", SIGPOLL},
};
// The kernel's real-time signals begin at 32; libc keeps two or three for itself, so SIGRTMIN is a call, not a
// constant. Container tools count from 34, as glibc does, whatever they are built with.
constexpr int kRtMin = 34;
constexpr int kRtMax = 64;

sigset_t set_of(const std::vector<int>& signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : signals) sigaddset(&set, signal);
  return set;
}

}  // namespace

SignalMask::SignalMask(const std::vector<int>& signals) {
  const sigset_t set = set_of(signals);
  if (::sigprocmask(SIG_BLOCK, &set, &before_) < 0) throw_errno("block signals");
}
SignalMask::~SignalMask() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }

SignalFd::SignalFd(const std::vector<int>& signals) {
  const sigset_t set = set_of(signals);
  fd_ = Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd_) throw_errno("make a signal descriptor");
}

std::optional<int> SignalFd::next() const {
  signalfd_siginfo info;
  const ssize_t count = ::read(fd_.get(), &info, sizeof info);
  if (count == static_cast<ssize_t>(sizeof info)) return static_cast<int>(info.ssi_signo);
  return std::nullopt;
}

std::optional<int> find_signal(std::string_view text) noexcept {
  if (const auto number = to_int(text, 1, kRtMax)) return static_cast<int>(*number);
  std::string upper;
  for (const char c : text) upper += static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
  std::string_view name = upper;
  if (starts_with(name, "SIG")) name.remove_prefix(3);
  for (const auto& entry : kNames)
    if (name == entry.name) return entry.number;
  if (name == "RTMIN") return kRtMin;
  if (name == "RTMAX") return kRtMax;
  if (starts_with(name, "RTMIN+"))
    if (const auto n = to_int(name.substr(6), 0, kRtMax - kRtMin)) return kRtMin + static_cast<int>(*n);
  if (starts_with(name, "RTMAX-"))
    if (const auto n = to_int(name.substr(6), 0, kRtMax - kRtMin)) return kRtMax - static_cast<int>(*n);
  return std::nullopt;
}

int signal_from_name(std::string_view name) {
  if (const auto signal = find_signal(name)) return *signal;
  throw_usage("invalid signal {}", quoted(name));
}

std::string signal_name(int signal) {
  for (const auto& entry : kNames)
    if (entry.number == signal) return std::string("SIG") + entry.name;
  if (signal >= kRtMin && signal <= kRtMax) {
    if (signal == kRtMin) return "SIGRTMIN";
    if (signal == kRtMax) return "SIGRTMAX";
    return fmt::format("SIGRTMIN+{}", signal - kRtMin);
  }
  return std::to_string(signal);
}

}  // namespace kelp::sys
