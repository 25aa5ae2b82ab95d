// Where the cursor is: which command, which option, which argument. The values come from complete_values.cc.
#include "cli/complete.h"

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/completion_scripts.h"
#include "cli/global_options.h"
#include "cli/output.h"
#include "sys/lock.h"

namespace kelp::cli {
namespace {

const Option* find_long(const OptionSet& set, std::string_view name) {
  for (const Option& option : set.options())
    if (option.name == name || (!option.alias.empty() && option.alias == name)) return &option;
  return nullptr;
}
const Option* find_letter(const OptionSet& set, char letter) {
  for (const Option& option : set.options())
    if (option.letter == letter) return &option;
  return nullptr;
}
bool needs_value(const Option& option) { return option.kind != Kind::flag && option.implied.empty(); }

/// What the words before the cursor leave open.
struct Position {
  const Option* awaiting = nullptr;  ///< the next word is its value
  bool options_end = false;          ///< only arguments may follow
  size_t used = 0;                   ///< words read
  Strings arguments;
};

/// The option that takes the next word, when this word of short options ends with one.
const Option* last_of_letters(const OptionSet& set, const std::string& word) {
  for (size_t i = 1; i < word.size(); ++i) {
    const Option* const option = find_letter(set, word[i]);
    if (option == nullptr) return nullptr;
    if (needs_value(*option)) return i + 1 == word.size() ? option : nullptr;
  }
  return nullptr;
}

/// first_only: stop at the first argument, which is not read.
Position walk(const OptionSet& set, const Strings& words, bool first_only) {
  Position at;
  for (; at.used < words.size(); ++at.used) {
    const std::string& word = words[at.used];
    const bool argument = at.options_end || word.size() < 2 || word[0] != '-';
    if (at.awaiting != nullptr) {
      at.awaiting = nullptr;
    } else if (argument) {
      if (first_only) return at;
      at.arguments.push_back(word);
      if (!set.interspersed()) at.options_end = true;
    } else if (word == "--") {
      at.options_end = true;
    } else if (word[1] == '-') {
      const Option* const option = find_long(set, word.substr(2));
      if (option != nullptr && needs_value(*option)) at.awaiting = option;
    } else {
      at.awaiting = last_of_letters(set, word);
    }
  }
  return at;
}

void add_prefixed(std::vector<Candidate>& out, const std::string& prefix, std::vector<Candidate> values) {
  for (auto& value : values) out.push_back({prefix + value.text, std::move(value.help)});
}

/// Values of an option; `begin` is what has been typed of it.
std::vector<Candidate> option_values(const Option& option, const std::string& begin, const store::Layout& layout) {
  if (!option.choices.empty()) {
    std::vector<Candidate> found;
    for (const auto choice : option.choices)
      if (!choice.empty() && starts_with(choice, begin)) found.push_back({std::string(choice), ""});
    return found;
  }
  // A list separated by commas: only its last part is completed.
  const size_t comma = begin.rfind(',');
  if (option.kind == Kind::csv && comma != std::string::npos) {
    std::vector<Candidate> found;
    add_prefixed(found, begin.substr(0, comma + 1), complete_value(option.completes, begin.substr(comma + 1), layout));
    return found;
  }
  return complete_value(option.completes, begin, layout);
}

std::vector<Candidate> option_names(const OptionSet& set, const std::string& begin) {
  std::vector<Candidate> found;
  for (const Option& option : set.options()) {
    if (option.hidden) continue;
    if (begin == "-" && option.letter != 0)
      found.push_back({std::string{'-', option.letter}, std::string(option.help)});
    for (const auto name : {option.name, option.alias}) {
      const std::string word = "--" + std::string(name);
      const bool known =
          std::any_of(found.begin(), found.end(), [&](const Candidate& one) { return one.text == word; });
      if (!name.empty() && !known && starts_with(word, begin)) found.push_back({word, std::string(option.help)});
    }
  }
  if (starts_with("--help", begin)) found.push_back({"--help", "show what there is"});
  return found;
}

/// --name=VALUE, -nVALUE, or the name of an option.
std::vector<Candidate> complete_option(const OptionSet& set, const std::string& word, const store::Layout& layout) {
  std::vector<Candidate> found;
  const size_t equals = word.find('=');
  if (starts_with(word, "--") && equals != std::string::npos) {
    const Option* const option = find_long(set, word.substr(2, equals - 2));
    if (option == nullptr) return {};
    if (option->kind == Kind::flag) {
      for (const char* text : {"true", "false"})
        if (starts_with(text, word.substr(equals + 1))) found.push_back({word.substr(0, equals + 1) + text, ""});
      return found;
    }
    add_prefixed(found, word.substr(0, equals + 1), option_values(*option, word.substr(equals + 1), layout));
    return found;
  }
  for (size_t i = 1; word[0] == '-' && i < word.size() && word[1] != '-'; ++i) {
    const Option* const option = find_letter(set, word[i]);
    if (option == nullptr) return {};
    if (!needs_value(*option)) continue;
    add_prefixed(found, word.substr(0, i + 1), option_values(*option, word.substr(i + 1), layout));
    return found;
  }
  return option_names(set, word);
}

/// Names of commands: those of the program, or of a group.
std::vector<Candidate> command_names(std::string_view group, const std::string& begin) {
  const std::string prefix = group.empty() ? "" : std::string(group) + " ";
  std::vector<Candidate> found;
  const auto add = [&](std::string_view name, std::string_view help) {
    if (!starts_with(name, prefix)) return;
    name.remove_prefix(prefix.size());
    if (name.find(' ') != std::string_view::npos || !starts_with(name, begin)) return;
    found.push_back({std::string(name), std::string(help)});
  };
  for (const Command& command : commands()) {
    if (command.hidden) continue;
    add(command.name, command.summary);
    for (const auto& alias : command_aliases(command)) add(alias, command.summary);
  }
  if (group.empty()) {
    for (const CommandGroup& entry : command_groups()) add(entry.name, entry.summary);
    if (starts_with("help", begin)) found.push_back({"help", "show the options of a command"});
  }
  return found;
}

bool is_group(std::string_view word) {
  const auto groups = command_groups();
  return std::any_of(groups.begin(), groups.end(), [&](const CommandGroup& group) { return group.name == word; });
}

/// The kind of the argument with this index, from the words of the usage line.
Complete argument_kind(const OptionSet& set, const Strings& arguments) {
  const size_t index = arguments.size();
  if (set.max_arguments() >= 0 && index >= static_cast<size_t>(set.max_arguments())) return Complete::none;
  if (index == 0 || starts_with(set.usage(), "[CONTAINER:]")) return set.argument_completion();
  const auto places = split(set.usage(), ' ');
  const std::string& place = places[std::min(index, places.size() - 1)];
  // "COMMAND [ARGUMENT...]" belongs to the container, "NAME" is new.
  if (starts_with(place, "[FILE") || starts_with(place, "FILE")) return Complete::file;
  if (set.argument_completion() == Complete::command) return Complete::file;
  for (const char* word : {"CONTAINER", "IMAGE", "VOLUME", "SECRET", "NAME..."})
    if (place.find(word) != std::string::npos && (index < places.size() || place.find("...") != std::string::npos))
      return set.argument_completion();
  return Complete::none;
}

std::vector<Candidate> complete_arguments(const OptionSet& set, const Strings& arguments, const std::string& word,
                                          const store::Layout& layout) {
  const bool copies = starts_with(set.usage(), "[CONTAINER:]");
  if (!copies) {
    auto found = complete_value(argument_kind(set, arguments), word, layout);
    // One that has been named already is not meant again.
    std::erase_if(found, [&](const Candidate& candidate) {
      return std::find(arguments.begin(), arguments.end(), candidate.text) != arguments.end();
    });
    return found;
  }
  if (arguments.size() > 1 || word.find(':') != std::string::npos) return {};
  std::vector<Candidate> found;
  if (!starts_with(word, ".") && word.find('/') == std::string::npos)
    for (auto& container : complete_value(Complete::container, word, layout))
      found.push_back({container.text + ":", std::move(container.help)});
  for (auto& path : complete_value(Complete::file, word, layout)) found.push_back(std::move(path));
  return found;
}

/// --root and --runroot say whose containers are meant.
store::Layout layout_of(const Strings& words) {
  ProgramOptions program;
  OptionSet globals;
  globals.stop_at_first_word();
  add_global_options(globals, program, true);
  try {
    globals.parse(words, "kelp");
  } catch (const Error&) {  // half a command line: the usual places then
  }
  return store::resolve(program.engine.root, program.engine.run_root);
}

}  // namespace

std::vector<Candidate> complete(const Strings& words) {
  if (words.empty()) return {};
  const std::string& word = words.back();
  const Strings before(words.begin(), words.end() - 1);
  ProgramOptions program;
  OptionSet globals;
  globals.stop_at_first_word();
  add_global_options(globals, program, true);
  const Position global = walk(globals, before, true);
  const store::Layout layout = layout_of(before);
  if (global.awaiting != nullptr) return option_values(*global.awaiting, word, layout);
  Strings rest(before.begin() + static_cast<std::ptrdiff_t>(global.used), before.end());
  if (!rest.empty() && rest[0] == "help") rest.erase(rest.begin());
  if (rest.empty())
    return starts_with(word, "-") && global.used == before.size() ? complete_option(globals, word, layout)
                                                                  : command_names({}, word);
  size_t used = 0;
  const Command* const command = find_command(rest, used);
  if (command == nullptr)
    return rest.size() == 1 && is_group(rest[0]) ? command_names(rest[0], word) : std::vector<Candidate>{};
  OptionSet set;
  const Action action = command->define(set);  // owns the targets that the set points to
  add_global_options(set, program, false);
  const Position at = walk(set, Strings(rest.begin() + static_cast<std::ptrdiff_t>(used), rest.end()), false);
  if (at.awaiting != nullptr) return option_values(*at.awaiting, word, layout);
  if (!at.options_end && starts_with(word, "-") && word != "-") return complete_option(set, word, layout);
  if (!at.options_end && word == "-") return option_names(set, word);
  return complete_arguments(set, at.arguments, word, layout);
}

Action define_completion(OptionSet& options) {
  struct CompletionCommand {
    std::string file;
    bool no_descriptions = false;
  };
  auto values = std::make_shared<CompletionCommand>();
  options.arguments("bash|zsh|fish", 1, 1);
  options.text("file,f", values->file, "FILE", "write the script to a file").complete(Complete::file);
  options.flag("no-desc", values->no_descriptions, "without descriptions of what is offered");
  options.describe({}, "source <(kelp completion bash)\nkelp completion fish > ~/.config/fish/completions/kelp.fish");
  return [values](Invocation& invocation) {
    const std::string& shell = invocation.arguments[0];
    if (shell != "bash" && shell != "zsh" && shell != "fish")
      throw_usage("there is no completion for {}: bash, zsh and fish are known", quoted(shell));
    std::string script = shell == "bash" ? kBashCompletion : shell == "zsh" ? kZshCompletion : kFishCompletion;
    if (values->no_descriptions) {
      const std::string verb = "__complete --";
      script.replace(script.rfind(verb), verb.size(), "__complete --no-desc --");
    }
    if (values->file.empty())
      print(script);
    else
      sys::replace_file(values->file, script, 0644);
    return 0;
  };
}

Action define_complete(OptionSet& options) {
  options.arguments("-- WORD...", 0, -1);
  options.stop_at_first_word();
  auto plain = std::make_shared<bool>(false);
  options.flag("no-desc", *plain, "words only");
  return [plain](Invocation& invocation) {
    std::string text;
    for (const auto& candidate : complete(invocation.arguments)) {
      if (candidate.text.find_first_of("\t\n") != std::string::npos) continue;
      text += candidate.text;
      if (!candidate.help.empty() && !*plain) text += "\t" + candidate.help;
      text += '\n';
    }
    print(text);
    return 0;
  };
}

}  // namespace kelp::cli
