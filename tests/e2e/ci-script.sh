#!/bin/bash
# What CI files do with docker: a service is started, looked at, filled, moved and cleared up. What may differ from run
# to run is not printed. test_real_programs.py has bash run it with `docker` on PATH; $N are the network's options.
# shellcheck disable=SC2086,SC2046 # as such scripts are
set -euo pipefail
say() { echo "== $*"; }

say start
docker volume create --label ci=yes state >/dev/null
id=$(docker run -d --name service $N -v state:/state -e LEVEL=3 --label job=build busybox \
  sh -c 'echo "up at level $LEVEL"; trap "echo going down; exit 0" TERM; while :; do sleep 0.1; done')
test ${#id} = 64
for _ in $(seq 100); do docker logs service 2>&1 | grep -q 'up at' && break; sleep 0.1; done
docker ps --filter label=job=build --format '{{.Names}} {{.Image}}'
[ "$(docker ps -aq --filter name=service)" = "${id:0:12}" ]
[ "$(docker ps -q --no-trunc --filter status=running)" = "$id" ]
docker inspect -f '{{.State.Status}} {{.State.Running}} {{.Config.Labels.job}} {{len .Mounts}}' service
[ "$(docker inspect --format='{{.Id}}' service)" = "$id" ]

say exec and cp
docker exec -e WHO=ci service sh -c 'echo "from $WHO" >/state/note; id -u'
mkdir -p artifacts && echo "test data" >artifacts/input
docker cp artifacts service:/tmp/
docker exec service cat /tmp/artifacts/input
docker exec -i service sh -c 'cat >/tmp/artifacts/output' <artifacts/input
docker cp service:/tmp/artifacts/output artifacts/ && cat artifacts/output
docker cp service:/state/note - | tar -tf -
docker exec service sh -c 'exit 7' && exit 1 || echo "exit $?"
docker exec service test -e /nothing && exit 1 || echo "exit $?"

say stop
docker stop -t 10 service
docker wait service
docker logs service
docker logs --tail 1 service 2>&1
docker ps -a --filter status=exited --format '{{.Names}}: {{.Status}}' | sed 's/ [0-9A-Z].*ago//'
docker start service >/dev/null && docker kill --signal KILL service >/dev/null && docker wait service

say images
docker commit -q --change 'CMD ["cat", "/tmp/artifacts/output"]' service localhost/ci/service:1 | wc -c
docker tag localhost/ci/service:1 localhost/ci/service:latest
docker run --rm $N localhost/ci/service:1
docker save localhost/ci/service:1 | gzip >artifacts/image.tar.gz
docker rmi -f localhost/ci/service:1 localhost/ci/service:latest >/dev/null
docker image inspect localhost/ci/service:1 >/dev/null 2>&1 && exit 1 || echo "exit $?"
gunzip <artifacts/image.tar.gz | docker load -q | sed 's/sha256:[0-9a-f]*/<id>/'
docker run --rm $N -v "$PWD/artifacts:/a:ro" -w /a localhost/ci/service:1 cat input
docker images --format '{{.Repository}}:{{.Tag}}' | sort

say environment
printf 'ONE=1\n# not this\nTWO=two words\n' >variables
docker run --rm $N --env-file variables --entrypoint sh busybox -c 'echo "$ONE $TWO"'
echo piped | docker run -i --rm $N busybox tr a-z A-Z
docker run --rm $N -u 1000:1000 -w /home/app busybox sh -c 'id -u; pwd'
docker run --name failing $N busybox sh -c 'echo broken >&2; exit 3' 2>/dev/null && exit 1 || echo "exit $?"
docker inspect -f '{{.State.ExitCode}}' failing

say clear up
docker ps -aq | wc -l
docker rm -f $(docker ps -aq) | wc -l
docker ps -aq
docker run --rm $N -v state:/state busybox cat /state/note
docker volume ls -q --filter label=ci=yes
docker volume rm state
docker volume ls -q
docker rmi localhost/ci/service:1 >/dev/null
