# fish completion for kelp: everything is answered by `kelp __complete`, from the declaration of the options.

function __kelp_complete
    set -l words (commandline --tokenize --cut-at-cursor --current-process)
    $words[1] __complete -- $words[2..-1] (commandline --current-token --cut-at-cursor) 2>/dev/null
end

complete --command kelp --no-files --arguments '(__kelp_complete)'
