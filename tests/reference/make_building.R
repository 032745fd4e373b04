## lmerTest's drop1 and step of the data in anova.csv, lme4's rePCA, and nlme's Variogram of Ovary, in building.json:
##     Rscript tests/reference/make_building.R
## Needs R with lmerTest, pbkrtest, nlme and jsonlite.
suppressMessages({library(lmerTest); library(nlme); library(jsonlite)})
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)))
data <- read.csv(file.path(here, "anova.csv"), stringsAsFactors = TRUE)
data$g <- factor(data$g)
control <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = 1e-3, rhoend = 1e-12, maxfun = 1e5))
table_of <- function(x) list(terms = rownames(x), table = unname(as.matrix(as.data.frame(x))))
building <- function(formula, ...) {
  model <- suppressWarnings(suppressMessages(lmer(as.formula(formula), data, control = control)))
  found <- suppressWarnings(suppressMessages(step(model, ...)))
  list(formula = formula, keep = list(...)$keep,
       F = table_of(drop1(model)), KR = table_of(drop1(model, ddf = "Kenward-Roger")),
       lrt = table_of(drop1(model, ddf = "lme4", test = "Chisq")),
       random = table_of(found$random), fixed = table_of(found$fixed),
       found = deparse(formula(suppressWarnings(get_model(found)))))
}
models <- list(
  building("y ~ a * b * x + (x | g)"), building("y ~ a + poly(x, 2) + z + (1 | g)", keep = "z"),
  building("y ~ a * z + x + (x + z | g)"), building("y ~ x + z + (1 | g) + (0 + z | g)"),
  building("y ~ 0 + a + b + (1 | g)"))

components <- lapply(rePCA(lmer(y ~ a + x + (x + z | g), data, control = control)), function(p) p$sdev)

## nlme's normalized residuals of groups whose levels are not in the order of the rows are others' (their sum of
## squares is 327 for n - p = 305): levels and rows in one order
ovary <- as.data.frame(Ovary)
ovary$Mare <- factor(as.integer(as.character(ovary$Mare)))
ovary <- ovary[order(ovary$Mare), ]
series <- gls(follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time), ovary, correlation = corAR1(form = ~ 1 | Mare))
variograms <- list()
for (type in c("pearson", "normalized", "response")) for (robust in c(FALSE, TRUE)) for (nint in c(20, 5)) {
  v <- Variogram(series, form = ~ Time | Mare, resType = type, robust = robust, nint = nint)
  variograms[[length(variograms) + 1]] <- list(type = type, robust = robust, bins = nint,
                                               dist = v$dist, semivariance = v$variog, n = v$n.pairs)
}
girls <- lme(distance ~ age * Sex, random = ~ 1 | Subject, data = as.data.frame(Orthodont))
v <- Variogram(girls, form = ~ age | Subject)
out <- list(models = models, components = components, variograms = variograms,
            few = list(dist = v$dist, semivariance = v$variog, n = v$n.pairs))
write(toJSON(out, auto_unbox = TRUE, digits = NA, pretty = 1, na = "null"), file.path(here, "building.json"))
