#include <sys/random.h>

#include <array>
#include <cerrno>
#include <cstdint>

#include "base/error.h"
#include "base/text.h"
#include "store/containers.h"

namespace kelp::store {

namespace {

// Words of the shore: names are for people who read a table.
constexpr std::array kAdjectives = {
    "agile",  "amber",  "ample",   "azure",  "balmy",  "bold",   "brave",  "breezy", "bright", "brisk",  "calm",
    "clear",  "clever", "coral",   "crisp",  "dapper", "deft",   "eager",  "early",  "easy",   "fair",   "fleet",
    "foamy",  "fond",   "frosty",  "gentle", "glad",   "golden", "grand",  "green",  "hardy",  "hazel",  "honest",
    "icy",    "jolly",  "keen",    "kind",   "light",  "lively", "loyal",  "lucid",  "lucky",  "mellow", "merry",
    "mild",   "misty",  "modest",  "neat",   "nimble", "noble",  "pearly", "placid", "plucky", "polite", "proud",
    "quick",  "quiet",  "ready",   "roving", "rustic", "salty",  "sandy",  "serene", "sharp",  "shiny",  "silent",
    "silver", "sleek",  "smooth",  "snug",   "solid",  "spry",   "stable", "steady", "still",  "stout",  "sunny",
    "swift",  "tender", "thrifty", "tidal",  "tidy",   "trim",   "true",   "vivid",  "warm",   "wavy",   "wide",
    "windy",  "wise",   "witty",   "young",  "zesty",  "zippy"};
constexpr std::array kNouns = {
    "abalone", "albatross", "anchovy",  "anemone", "auk",       "barnacle",  "bass",      "beluga",  "blenny",
    "bream",   "brill",     "capelin",  "clam",    "cockle",    "cod",       "conch",     "coot",    "cormorant",
    "cowrie",  "crab",      "curlew",   "dab",     "dolphin",   "dory",      "dulse",     "dunlin",  "eider",
    "fulmar",  "gannet",    "garfish",  "goby",    "grebe",     "grouper",   "guillemot", "gull",    "gurnard",
    "haddock", "hake",      "halibut",  "heron",   "herring",   "kittiwake", "krill",     "lamprey", "limpet",
    "ling",    "lobster",   "mackerel", "manatee", "marlin",    "minnow",    "mullet",    "murre",   "mussel",
    "narwhal", "nautilus",  "octopus",  "orca",    "osprey",    "otter",     "oyster",    "pelican", "perch",
    "petrel",  "pilchard",  "plaice",   "plover",  "pollock",   "porpoise",  "prawn",     "puffin",  "ray",
    "redfish", "sandpiper", "sardine",  "scallop", "scoter",    "seal",      "shag",      "shanny",  "shrimp",
    "skate",   "skua",      "sole",     "sprat",   "squid",     "starfish",  "sturgeon",  "tern",    "tope",
    "triton",  "trout",     "tuna",     "turbot",  "turnstone", "urchin",    "walrus",    "whelk",   "whiting",
    "wrasse"};

void random_bytes(void* to, size_t count) {
  // The pool is there long before a user can log in; a short read cannot happen below 256 bytes.
  while (::getrandom(to, count, 0) < 0)
    if (errno != EINTR) throw_errno("read random bytes");
}

}  // namespace

std::string new_container_id() {
  std::array<unsigned char, 32> bytes{};
  random_bytes(bytes.data(), bytes.size());
  std::string id;
  for (const unsigned char byte : bytes) id += fmt::format("{:02x}", byte);
  // podman never gives an id whose first 12 digits are a number: tables and shells would take it for one.
  if (id.find_first_of("abcdef") >= 12) return new_container_id();
  return id;
}

std::string generated_name() {
  std::array<std::uint16_t, 2> numbers{};
  random_bytes(numbers.data(), sizeof numbers);
  return std::string(kAdjectives[numbers[0] % kAdjectives.size()]) + "_" + kNouns[numbers[1] % kNouns.size()];
}

void check_name(std::string_view name, const char* what) {
  const auto good = [](char letter, bool first) {
    const bool word =
        (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') || (letter >= '0' && letter <= '9');
    return word || (!first && (letter == '_' || letter == '.' || letter == '-'));
  };
  bool fine = !name.empty() && name.size() <= 200;
  for (size_t at = 0; fine && at < name.size(); ++at) fine = good(name[at], at == 0);
  if (!fine)
    throw_usage("{} name {} is not valid: names must match [a-zA-Z0-9][a-zA-Z0-9_.-]*: invalid argument", what,
                quoted(name));
}

}  // namespace kelp::store
