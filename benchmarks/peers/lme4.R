# lme4: lmer() for every response, refit() of one fitted model, the modular functions with the formula parsed
# once, and lmer() with tightened tolerances. Needs lme4 only; the JSON is written by hand.
#
# refit() of lme4 1.1-31 hands REML = TRUE, that is 1 instead of p, to its response module, so its REML fits
# maximise with n - 1 degrees of freedom and miss the optimum; `modular` is the exact way to reuse a design.

arguments <- strsplit(commandArgs(trailingOnly = TRUE), "=", fixed = TRUE)
option <- setNames(lapply(arguments, function(a) paste(a[-1], collapse = "=")), vapply(arguments, `[`, "", 1))

json <- function(x) {
  if (is.list(x)) {
    body <- vapply(x, json, "")
    if (is.null(names(x))) return(paste0("[", paste(body, collapse = ","), "]"))
    return(paste0("{", paste0("\"", names(x), "\":", body, collapse = ","), "}"))
  }
  values <- if (is.character(x)) paste0("\"", gsub("[\"\\\\\n]", " ", x), "\"")
            else if (is.logical(x)) ifelse(x, "true", "false")
            else ifelse(is.finite(x), sprintf("%.17g", x), "NaN")
  if (length(values) == 1) values else paste0("[", paste(values, collapse = ","), "]")
}

peak_mib <- function() {
  if (!file.exists("/proc/self/status")) return(NaN)
  line <- grep("^VmHWM", readLines("/proc/self/status"), value = TRUE)
  as.numeric(gsub("[^0-9]", "", line)) / 1024
}

finish <- function(result) {
  writeLines(json(c(list(peak_mib = peak_mib()), result)), option$out)
  quit(save = "no", status = 0)
}

if (!suppressMessages(suppressWarnings(require(lme4, quietly = TRUE)))) finish(list(missing = "lme4"))

formula <- as.formula(option$formula)
reml <- option$reml == "true"
design <- read.csv(file.path(option$data, "design.csv"), stringsAsFactors = TRUE)
for (group in strsplit(option$groups, ",", fixed = TRUE)[[1]]) design[[group]] <- factor(design[[group]])

# lower triangles by row, term after term
estimate <- function(fit) {
  cov <- unlist(lapply(VarCorr(fit), function(v) { u <- t(as.matrix(v)); u[upper.tri(u, diag = TRUE)] }))
  list(criterion = if (reml) REMLcrit(fit) else deviance(fit), cov = as.list(unname(cov)),
       sigma2 = sigma(fit)^2, beta = as.list(unname(fixef(fit))),
       converged = !length(grep("singular", fit@optinfo$conv$lme4$messages, value = TRUE, invert = TRUE)))
}

each <- function(fit, responses) {
  budget <- as.numeric(option$budget)
  clock <- function() as.numeric(Sys.time())
  start <- clock()
  try(suppressWarnings(suppressMessages(fit(responses[[1]]))), silent = TRUE)
  begun <- clock()
  first <- begun - start
  seconds <- list()
  estimates <- list()
  for (y in responses) {
    start <- clock()
    done <- tryCatch(suppressWarnings(suppressMessages(fit(y))), error = function(e) conditionMessage(e))
    seconds[[length(seconds) + 1]] <- clock() - start
    estimates[[length(estimates) + 1]] <- if (is.character(done)) list(error = done) else estimate(done)
    if (clock() - begun > budget) break
  }
  list(first = first, seconds = seconds, estimates = estimates)
}

if (option$mode == "fresh") {
  fit <- lmer(formula, design, REML = reml)
  print(summary(fit))
  finish(list(estimate = estimate(fit)))
}

responses <- as.list(read.csv(file.path(option$data, "checked.csv")))
versions <- list(R = paste(R.version$major, R.version$minor, sep = "."),
                 lme4 = as.character(packageVersion("lme4")), BLAS = basename(sessionInfo()$BLAS))
if (option$weighted == "true") {
  weights <- read.csv(file.path(option$data, "checked_weights.csv"))
  both <- lapply(seq_along(responses), function(i) list(y = responses[[i]], w = weights[[i]]))
  one <- function(p) {
    d <- design
    d[[option$response]] <- p$y
    d$own_weights <- p$w
    lmer(formula, d, REML = reml, weights = own_weights)
  }
  finish(list(methods = list(lmer = each(one, both)), versions = versions))
}
with_response <- function(y) { d <- design; d[[option$response]] <- y; d }
tight <- lmerControl(optimizer = "nloptwrap", calc.derivs = FALSE, boundary.tol = 0,
                     optCtrl = list(algorithm = "NLOPT_LN_BOBYQA", xtol_abs = 1e-10, ftol_abs = 1e-12,
                                    maxeval = 1e5))
fitted <- suppressWarnings(suppressMessages(lmer(formula, with_response(responses[[length(responses)]]), REML = reml)))
parsed <- lFormula(formula, with_response(responses[[1]]), REML = reml)
start <- parsed$reTrms$theta + 0  # a copy: the optimiser writes into parsed$reTrms
modular <- function(y) {
  parsed$fr[[option$response]] <- y
  devfun <- do.call(mkLmerDevfun, parsed)
  mkMerMod(environment(devfun), optimizeLmer(devfun, start = start), parsed$reTrms, fr = parsed$fr)
}
finish(list(
  methods = list(
    lmer = each(function(y) lmer(formula, with_response(y), REML = reml), responses),
    refit = each(function(y) refit(fitted, y), responses),
    modular = each(modular, responses),
    `lmer, tight` = each(function(y) lmer(formula, with_response(y), REML = reml, control = tight), responses)
  ),
  versions = versions
))
