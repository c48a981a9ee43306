# Zegel: everything a developer, an officer trying it out, or CI runs. `make` alone prints this list.
# A target installs with apt-get what it needs and does not find (through sudo where not root).

SHELL       := /bin/bash
SUDO        := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
APT         := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get
FUZZTIME    ?= 30s
BENCHTIME   ?= 1s
KILLS       ?= 2000
DURATION    ?= 1h
RUNS        ?= 3
PARTS       := ./hsm ./internal/journal ./internal/durable ./policy ./ca ./ocsp ./tsa
SHOWN       := zegel/(ca|ocsp|tsa|policy|hsm|internal/(der|journal))\.|zlint/v3/lint|x509\.Parse|ecdsa\.(Sign|Verify)ASN1$$|bbolt|cgocall$$|mallocgc$$|gcBgMarkWorker$$|Fdatasync
TOKENS      ?= soft,softhsm
KEYS        ?= p256,p384,p521,rsa3072,rsa4096,rsa3072-pss
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.DEFAULT_GOAL := help
.PHONY: help build demo test check docs judges bench profile fuzz corpus soak clean need-go need-softhsm need-tokens need-openssl need-judges

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: need-go ## build the five binaries into bin/
	go build -trimpath -o bin/ ./cmd/...

demo: build ## run a whole provider on this machine until Ctrl-C (state in ./demo, software keys)
	bin/zegel demo --dir demo

test: need-go need-softhsm need-tokens need-openssl ## run all tests, with the race detector, against SoftHSM, other tokens and OpenSSL, and die at every crash point
	go test -race -shuffle=on -timeout 20m ./...
	go test -tags failpoint -count 1 -timeout 10m -run 'TestCrash|TestModes|TestParse' ./cmd/zegel ./internal/failpoint

check: need-go ## formatting, vet, staticcheck and module tidiness
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt wants:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	go vet -tags failpoint,judges ./...
	go run $(STATICCHECK) -checks all,-ST1000,-ST1005 ./...
	go run $(STATICCHECK) -checks all,-ST1000,-ST1005 -tags failpoint,judges ./...
	go mod tidy -diff
	go mod verify

docs: need-go ## write docs/reference.md, and the table of algorithms in docs/tokens.md, anew from the code
	go test -count 1 -run TestReference ./internal/manual -update

judges: need-go need-softhsm need-openssl need-judges ## let what others wrote judge demos of every token and key (TOKENS=… KEYS=… for some)
	go test -tags judges -count 1 -timeout 25m -run TestJudges ./cmd/zegel -args -tokens $(TOKENS) -keys $(KEYS)

bench: need-go need-softhsm ## measure every path beside its raw signature and print the tables of docs/performance.md (BENCHTIME=1s, RUNS=3)
	@set -eo pipefail; mkdir -p build; : > build/bench.txt; \
	for run in $$(seq $(RUNS)); do \
	  go test -run '^$$' -bench . -benchtime $(BENCHTIME) -timeout 30m ./internal/figures | tee -a build/bench.txt; \
	  GOGC=400 go test -run '^$$' -bench . -benchtime 300ms -benchmem $(PARTS) | tee -a build/bench.txt; \
	done; \
	echo; go run ./internal/figures < build/bench.txt

profile: need-go need-softhsm ## a CPU profile of each path under build/profiles, and what it shows
	@set -eo pipefail; mkdir -p build/profiles; go test -c -o build/profiles/figures.test ./internal/figures; \
	for path in issue ocsp-live ocsp-cached timestamp append; do \
	  (cd internal/figures && ../../build/profiles/figures.test -test.run '^$$' -test.bench "^BenchmarkPath$$/^token=soft$$/^key=p256$$/^path=$$path$$/^callers=64$$" \
	    -test.benchtime 5s -test.cpuprofile ../../build/profiles/$$path.prof) | grep ^Benchmark; \
	  go tool pprof -top -cum -nodecount 30 -show '$(SHOWN)' build/profiles/figures.test build/profiles/$$path.prof; \
	done

fuzz: need-go ## every fuzz target for FUZZTIME (30s)
	@set -e; for package in $$(go list ./...); do \
	  for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "== $$package $$target"; go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$package; \
	  done; done

corpus: need-go ## keep in the tree what fuzzing found interesting: up to 24 inputs a target, of at most 2 KiB, spread over their sizes
	@cache=$$(go env GOCACHE)/fuzz/$$(go list -m); for dir in $$(cd $$cache && find . -type d -name 'Fuzz*'); do \
	  package=$${dir%/*}; kept=$$package/testdata/fuzz/$${dir##*/}; mkdir -p $$kept; \
	  find $$cache/$$dir -type f -size -2049c -printf '%s %f\n' | sort -n | awk '{ name[NR] = $$2 } END { step = NR > 24 ? NR / 24 : 1; for (i = 1; i <= NR; i += step) print name[int(i)] }' | \
	    while read -r name; do cp $$cache/$$dir/$$name $$kept/; done; \
	done

soak: need-go ## kill every daemon under load, KILLS (2000) times or for DURATION (1h), then check all that must be true
	go test -count 1 -timeout 3h -run 'TestSoak$$' -v ./cmd/zegel -args -kills $(KILLS) -duration $(DURATION)

clean: ## remove what was built and measured, and the demo
	rm -rf bin build demo

need-go:
	@command -v go >/dev/null || { echo "Go is missing: install Go 1.26 or newer (https://go.dev/dl/) and put it on PATH"; exit 1; }
	@command -v gcc >/dev/null || { $(APT) update -q && $(APT) install -q -y --no-install-recommends gcc libc6-dev; }

need-softhsm:
	@command -v softhsm2-util >/dev/null || { $(APT) update -q && $(APT) install -q -y --no-install-recommends softhsm2; }

# The tokens beside SoftHSM (docs/tokens.md, Tokens tried). openCryptoki's daemon runs until the machine stops; only root and group pkcs11 may
# talk to it.
need-tokens:
	@ls /usr/lib/*/libsoftokn3.so >/dev/null 2>&1 && command -v certutil >/dev/null || { $(APT) update -q && $(APT) install -q -y --no-install-recommends libnss3 libnss3-tools; }
	@ls /usr/lib/*/pkcs11/p11-kit-client.so >/dev/null 2>&1 && command -v p11-kit >/dev/null || { $(APT) update -q && $(APT) install -q -y --no-install-recommends p11-kit p11-kit-modules; }
	@test -x /usr/sbin/pkcsslotd || { $(APT) update -q && $(APT) install -q -y --no-install-recommends opencryptoki; }
	@$(SUDO) /usr/sbin/pkcsconf -i >/dev/null 2>&1 || $(SUDO) /usr/sbin/pkcsslotd
	@[ "$$(id -u)" = 0 ] || id -nG | grep -qw pkcs11 || { $(SUDO) usermod -aG pkcs11 "$$(id -un)"; echo "You are in group pkcs11 now, for openCryptoki's token: log in again and repeat"; exit 1; }

need-openssl:
	@command -v openssl >/dev/null && command -v curl >/dev/null || { $(APT) update -q && $(APT) install -q -y --no-install-recommends openssl curl ca-certificates; }

# What judges us: the commands that show whether a package is there, and the package.
need-judges:
	@command -v certtool >/dev/null && command -v ocsptool >/dev/null || { $(APT) update -q && $(APT) install -q -y --no-install-recommends gnutls-bin; }
	@command -v javac >/dev/null && command -v keytool >/dev/null && command -v jarsigner >/dev/null || { $(APT) update -q && $(APT) install -q -y --no-install-recommends default-jdk-headless; }
	@command -v certutil >/dev/null && command -v vfychain >/dev/null && command -v ocspclnt >/dev/null || { $(APT) update -q && $(APT) install -q -y --no-install-recommends libnss3-tools; }
	@command -v osslsigncode >/dev/null || { $(APT) update -q && $(APT) install -q -y --no-install-recommends osslsigncode; }
	@command -v nginx >/dev/null || test -x /usr/sbin/nginx || { $(APT) update -q && $(APT) install -q -y --no-install-recommends nginx-light; }
	@command -v node >/dev/null && command -v npm >/dev/null || { $(APT) update -q && $(APT) install -q -y --no-install-recommends nodejs npm; }
	@cmp -s testdata/judges/pkijs/package.json build/judges/package.json && test -d build/judges/node_modules || { mkdir -p build/judges && \
	  cp testdata/judges/pkijs/package.json build/judges/ && npm install --prefix build/judges --no-package-lock --no-audit --no-fund --loglevel=error; }
